"""The checks of the storm see what they are there for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rehearsal import synthetic
from rehearsal.backend import Backend
from rehearsal.checks import Played
from rehearsal.client import Client
from rehearsal.messages import Decision, Survey
from rehearsal.play import Rehearsal
from tests.faults import afterwards, stored
from tests.faults.comparison import differences, numbers

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NAME = "synthetic-001"
TOLD = Decision(7, 1, 5, 0.5, 0, 1, NOW, (1.0, 0.0, 1.0), "F0")
SURVEY = Survey(finished_ema=True, app_use_flag=True, activity_question_response=True, cannabis_use=(1.0,))
KEY = f"{NAME} 0001"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """The tables after one point of one participant; a test changes them."""
    found: dict[str, list[dict[str, Any]]] = {
        stored.DECISIONS: [{"key": KEY, "id": 7, **vars(TOLD), "state": [1.0, 0.0, 1.0]}],
        stored.WINDOWS: [
            {"key": KEY, "kind": "ended", "state": "ingested", "code": None, "job_id": 3, "job_state": "done"}
        ],
        stored.ANSWERS: [{"key": KEY, "item": {**vars(SURVEY), "cannabis_use": [1.0]}}],
        stored.JOBS: [{"id": 3, "kind": "ingest", "state": "done", "reason": None}],
        stored.DISCREPANCIES: [],
    }
    monkeypatch.setattr(stored, "read", lambda _url, query, _study: found[query])
    return found


def wrong() -> list[str]:
    """What the checks say of the tables after that point."""
    played = Played(synthetic.people(1, 1, 1)[0], {1: SURVEY}, {1: TOLD}, {1: 3})
    play = Rehearsal(Client("http://nowhere", "s", "a", "b"), Backend(None), [], 1, 1)
    play.played = [played]
    return afterwards.wrong("", "", play)


def test_what_was_told_and_is_stored_once_is_right(tables: dict[str, Any]) -> None:
    assert wrong() == []


@pytest.mark.parametrize("table", [stored.DECISIONS, stored.WINDOWS, stored.ANSWERS])
def test_what_is_lost_or_doubled_is_found(tables: dict[str, Any], table: str) -> None:
    (row,) = tables[table]
    for rows in ([], [row, row]):
        tables[table] = rows
        assert len(wrong()) == 1


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        (stored.DECISIONS, "action", 0),
        (stored.DECISIONS, "act_prob", 0.5 + 1e-8),
        (stored.DECISIONS, "id", 8),
        (stored.DECISIONS, "state", [1.0, 0.0, 0.0]),
        (stored.WINDOWS, "job_id", 4),
        (stored.WINDOWS, "kind", "end_missing"),
        (stored.WINDOWS, "state", "ended"),
        (stored.WINDOWS, "state", "failed"),
        (stored.WINDOWS, "job_state", "running"),
        (stored.ANSWERS, "item", {**vars(SURVEY), "cannabis_use": [2.0]}),
        (stored.JOBS, "state", "queued"),
        (stored.JOBS, "state", "failed"),
        (stored.DISCREPANCIES, "code", 306),
    ],
)
def test_what_differs_or_is_unfinished_is_found(
    tables: dict[str, Any], table: str, column: str, value: object
) -> None:
    tables[table] = [{**row, column: value} for row in tables[table] or [{}]]
    assert wrong()


def test_a_window_that_failed_with_a_code_failed_for_cause(tables: dict[str, Any]) -> None:
    (window,), (job,) = tables[stored.WINDOWS], tables[stored.JOBS]
    tables[stored.WINDOWS] = [{**window, "state": "failed", "code": 320, "job_state": "failed"}]
    tables[stored.JOBS] = [{**job, "state": "failed", "reason": "no answer"}]
    tables[stored.ANSWERS] = []
    assert wrong() == []


def test_nested_values_are_compared_to_a_billionth() -> None:
    one = {"a": [{"x": [1.0, 2.0], "n": 3}], "b": None}
    assert list(differences(one, {"a": [{"x": [1.0 + 1e-12, 2.0], "n": 3}], "b": None})) == []
    assert len(list(differences(one, {"a": [{"x": [1.0 + 1e-8, 2.0], "n": 4}]}))) == 2
    assert len(list(differences(one, {"a": [{"x": [1.0], "n": 3}], "b": 0}))) == 2
    assert numbers(one) == 4
