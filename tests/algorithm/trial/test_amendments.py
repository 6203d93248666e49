"""Which changes need an amendment: key by key, as docs/protocol.md tells it."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from algorithm.trial.amendments import BASIS, FREE, begins_anew, breaking, changes, leaves, only_tightens
from algorithm.trial.protocol import default_document, load

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"
REACHED = 30
FREELY: dict[str, list[tuple[Any, Any]]] = {
    "schedule.study_length": [(60, 90), (60, 30)],
    "schedule.window_hours": [(8.0, 1.0), (8.0, 9.0)],
    "schedule.look_back_hours": [(3.0, 1.0), (3.0, 9.0)],
    "refit.min_interval_minutes": [(15.0, 0.0), (15.0, 60.0)],
    "refit.nightly_only": [(False, True), (True, False)],
    "refit.nightly_hour": [(2, 3), (2, 1)],
    "refit.weekly_day": [(0, 6)],
    "envelope.quiet_hours": [
        (None, {"from": 2200, "to": 700}),
        ({"from": 2200, "to": 700}, {"from": 2130, "to": 700}),
    ],
    "envelope.cool_down_hours": [(None, 1.0), (1.0, 2.0)],
    "envelope.daily_cap": [(None, 2), (2, 1)],
    "envelope.weekly_cap": [(None, 9), (9, 0)],
}
BY_AMENDMENT: dict[str, list[tuple[Any, Any]]] = {
    "schedule.study_length": [(60, 29), (60, 1)],
    "envelope.quiet_hours": [
        ({"from": 2200, "to": 700}, None),
        ({"from": 2200, "to": 700}, {"from": 2200, "to": 630}),
        ({"from": 2200, "to": 700}, {"from": 2300, "to": 900}),
    ],
    "envelope.cool_down_hours": [(1.0, None), (2.0, 1.0)],
    "envelope.daily_cap": [(2, None), (1, 2)],
    "envelope.weekly_cap": [(9, None), (0, 9)],
}


def put(key: str, value: Any) -> dict[str, Any]:
    """The complete MiWaves document with another value at a key, valid or not."""
    document = default_document("miwaves")
    *sections, last = key.split(".")
    place = document
    for section in sections:
        place = place[section]
    place[last] = deepcopy(value)
    return document


def told() -> dict[str, tuple[str, str]]:
    """The rows of the page's table of changes: by key, what is free and what needs an amendment."""
    lines = PAGE.read_text(encoding="utf-8").partition("## Changes")[2].splitlines()
    rows = [re.match(r"^\| (`[^|]+`) \| ([^|]*) \| ([^|]*) \|$", line) for line in lines]
    return {
        key: (row[2].strip(), row[3].strip())
        for row in rows
        if row
        for key in re.findall(r"`([^`]+)`", row[1])
    }


def keys() -> list[str]:
    """Every key of either protocol and of every algorithm."""
    documents = [default_document("miwaves"), default_document("oralytics")]
    documents.append(load({"protocol": "miwaves", "algorithm": "fixed_probability"}).document)  # type: ignore[arg-type]
    return sorted({key for document in documents for key in leaves(document)})


def test_the_page_tells_of_every_key_and_no_other() -> None:
    assert sorted(told()) == keys()


@pytest.mark.parametrize("key", keys())
def test_what_the_page_says_of_a_key_is_what_the_code_does(key: str) -> None:
    free, amended = told()[key]
    assert (free != "never") == (key in FREELY) == (key in FREE)
    assert (amended != "never") == (key not in FREELY or key in BY_AMENDMENT)
    for before, after in FREELY.get(key, []):
        assert breaking(put(key, before), put(key, after), REACHED) == []
    never_free = [] if key in FREELY else [("one value", "another")]
    for before, after in BY_AMENDMENT.get(key, never_free):
        old = put(key, before) if "algorithm_parameters" not in key else {key: before}
        new = put(key, after) if "algorithm_parameters" not in key else {key: after}
        assert changes(old, new) == [key]
        assert breaking(old, new, REACHED) == [key]


@pytest.mark.parametrize("key", [*FREELY, *BY_AMENDMENT])
def test_the_values_of_these_tests_are_ones_that_a_protocol_may_have(key: str) -> None:
    for pair in FREELY.get(key, []) + BY_AMENDMENT.get(key, []):
        for value in pair:
            load(put(key, value))


def test_what_was_learnt_ends_with_what_it_was_learnt_of() -> None:
    old = default_document("miwaves")
    anew = {key for key in leaves(old) if begins_anew(old, put(key, "another"))}
    assert {key.partition(".")[0] for key in anew} == set(BASIS)
    assert not begins_anew(old, old)


@pytest.mark.parametrize("key", FREE)
def test_only_a_tighter_envelope_only_tightens(key: str) -> None:
    tightens = key.startswith("envelope.")
    for old, new in FREELY[key]:
        assert only_tightens(put(key, old), put(key, new)) is tightens
        both = put(key, new) | {"algorithm": "pooled"}
        assert not only_tightens(put(key, old), both)
    for old, new in BY_AMENDMENT.get(key, []):
        assert not only_tightens(put(key, old), put(key, new))
