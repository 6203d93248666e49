"""Items field by field: what none of them may hold, and how long a text one can make at most."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithm.trial import discrepancies
from algorithm.trial.designs import DESIGNS
from workers.trial import ema_items
from workers.trial.ema_items import BadItem

LONGEST_TEXT = 100
ISSUED = {
    "action": 0,
    "seed": 2**53 - 1,
    "act_prob": 0.1 + 0.2,
    "policy_id": None,
    "decision_index": 2**31 - 1,
    "act_gen_timestamp": datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
}
HONEST: dict[str, Any] = {
    "user_id": "ann",
    "finished_ema": True,
    "app_use_flag": False,
    "cannabis_use": [2],
    "action_taken": 1,
    "seed": 5,
    "act_prob": 0.5,
    "policy_id": 0,
    "decision_index": 1,
    "act_gen_timestamp": "2026-01-01T12:00:00Z",
    "rid": 3,
}
TIMES = (
    *("act_gen_timestamp", "timestamp_finished_ema"),
    *("message_notification_sent_time", "message_notification_click_time"),
)
INTEGERS = {"seed": 2**53, "policy_id": 2**31, "decision_index": 2**31, "rid": 2**63}
SEPARATORS = st.characters().map(lambda one: f"2026-01-01{one}12:00:00")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | SEPARATORS,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)


def code(change: dict[str, Any]) -> int | None:
    """What an item with this change is refused with."""
    try:
        ema_items.read({**HONEST, **change})
    except BadItem as bad:
        return bad.code
    return None


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("digits", [0, 4200])
def test_a_number_that_its_column_cannot_hold_is_a_wrong_field(name: str, digits: int) -> None:
    assert code({name: INTEGERS[name] * 10**digits}) == code({name: -1}) == ema_items.code_of(name)
    assert code({name: INTEGERS[name] - 1}) is None


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("character", ["\x00", "\x1f", "\x7f", "\ud800", "\u2028", "é"])
def test_a_time_has_no_character_that_the_database_refuses(name: str, character: str) -> None:
    for written in (f"2026-01-01{character}12:00:00", f"{character}2026-01-01T12:00:00", character):
        assert code({name: written}) == ema_items.code_of(name)
    assert code({name: "2026-01-01 12:00:00"}) is None


@pytest.mark.parametrize("name", TIMES[1:])
def test_a_time_that_is_not_known_is_none_and_any_other_stays_as_it_was_written(name: str) -> None:
    for unknown in ("NA", None):
        assert getattr(ema_items.read({**HONEST, name: unknown}), name) is None
    assert getattr(ema_items.read({**HONEST, name: "20260101T12"}), name) == "20260101T12"
    assert code({name: ""}) == ema_items.code_of(name)


@given(changes=st.dictionaries(st.sampled_from(sorted(ema_items.Item.model_fields)), JSON))
def test_what_is_read_can_be_stored_and_makes_short_texts(changes: dict[str, Any]) -> None:
    raw = {**HONEST, **changes}
    try:
        item = ema_items.read(raw)
    except BadItem:
        return
    stored = json.dumps(item.content(ema_items.answers(raw, DESIGNS["miwaves"])))
    assert "\\u" not in stored
    for difference in discrepancies.differences(item.model_dump(), ISSUED, "Pacific/Kiritimati"):
        assert max(len(difference.issued), len(difference.reported)) <= LONGEST_TEXT
