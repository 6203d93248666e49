"""The checks of the storms catch the faults that they are there for."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from algorithm.core.backoff import LADDERS
from rehearsal import miwaves_people
from rehearsal.backend import Backend
from rehearsal.checks import Played
from rehearsal.client import Client
from rehearsal.contract import Decision, Job, Survey
from rehearsal.play import Rehearsal
from tests.storm import afterwards, poison, premise, stored
from tests.storm.comparison import differences, numbers
from tests.storm.killer import Kill, Killer, Target
from tests.storm.kills import Outcome, Plan, Storm
from tests.storm.play import DISTURBED, FaultyBackend
from tests.storm.poison import Poisoning
from workers.core.claims import AWAY
from workers.core.sweep import DIED

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NAME = "synthetic-001"
DECISION = Decision(7, 1, 5, 0.5, 0, 1, NOW, (1.0, 0.0, 1.0), "F0")
SURVEY = Survey(finished_ema=True, app_use_flag=True, activity_question_response=True, cannabis_use=(1.0,))
KEY = f"{NAME} 0001"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """The tables after one point of one participant; a test changes them."""
    tables: dict[str, list[dict[str, Any]]] = {
        stored.DECISIONS: [{"key": KEY, "id": 7, **vars(DECISION), "state": [1.0, 0.0, 1.0]}],
        stored.WINDOWS: [
            {"key": KEY, "kind": "ended", "state": "ingested", "code": None, "job_id": 3, "job_state": "done"}
        ],
        stored.ANSWERS: [{"key": KEY, "item": {**vars(SURVEY), "cannabis_use": [1.0]}}],
        stored.JOBS: [{"id": 3, "kind": "ingest", "state": "done", "code": None, "reason": None}],
        stored.DISCREPANCIES: [],
    }
    monkeypatch.setattr(stored, "read", lambda _url, query, _study: tables[query])
    return tables


def wrong() -> list[str]:
    """Return the faults that the checks name in the tables after that point."""
    played = Played(miwaves_people.people(1, 1, 1)[0], {1: SURVEY}, {1: DECISION}, {1: 3})
    play = Rehearsal(Client("http://nowhere", "s", "a", "b"), Backend(None), [], 1, 1)
    play.played = [played]
    return afterwards.wrong("", "", play)


def test_tables_with_every_acknowledged_thing_once_are_right(tables: dict[str, Any]) -> None:
    assert wrong() == []


@pytest.mark.parametrize("table", [stored.DECISIONS, stored.WINDOWS, stored.ANSWERS])
def test_a_lost_or_doubled_row_is_named(tables: dict[str, Any], table: str) -> None:
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
def test_a_different_or_unfinished_row_is_named(
    tables: dict[str, Any], table: str, column: str, value: object
) -> None:
    tables[table] = [{**row, column: value} for row in tables[table] or [{}]]
    assert wrong()


def test_a_window_that_failed_with_a_code_failed_for_cause(tables: dict[str, Any]) -> None:
    (window,), (job,) = tables[stored.WINDOWS], tables[stored.JOBS]
    tables[stored.WINDOWS] = [{**window, "state": "failed", "code": 320, "job_state": "failed"}]
    tables[stored.JOBS] = [{**job, "state": "failed", "code": 320, "reason": "no answer"}]
    tables[stored.ANSWERS] = []
    assert wrong() == []


@pytest.mark.parametrize("kind", ["ingest", "refit", "night"])
def test_a_job_may_fail_for_a_kill_and_not_for_a_fault_of_the_service(
    tables: dict[str, Any], kind: str
) -> None:
    (job,) = tables[stored.JOBS]
    for reason, is_wrong in (
        (DIED, False),
        (AWAY, False),
        ("the service failed: KeyError", True),
        (None, True),
    ):
        failed = {**job, "kind": kind, "state": "failed", "code": 321, "reason": reason}
        tables[stored.JOBS] = [failed]
        assert bool(wrong()) == is_wrong
    tables[stored.JOBS] = [{**job, "kind": "refit", "state": "failed", "reason": "the fit is no number"}]
    assert wrong()


def test_nested_values_are_compared_to_a_billionth() -> None:
    value = {"a": [{"x": [1.0, 2.0], "n": 3}], "b": None}
    assert list(differences(value, {"a": [{"x": [1.0 + 1e-12, 2.0], "n": 3}], "b": None})) == []
    assert len(list(differences(value, {"a": [{"x": [1.0 + 1e-8, 2.0], "n": 4}]}))) == 2
    assert len(list(differences(value, {"a": [{"x": [1.0], "n": 3}], "b": 0}))) == 2
    assert numbers(value) == 4


PLAN = Plan(participants=8, points=5, kills=2, pauses=(1.0, 1.0), seed=1)
KILLS = [Kill(kind, 1.0) for kind in ("beat", "PostgreSQL") for _ in range(2)]
FAILED = Counter({"error": 20, "reset": 10})
CALL_RESULTS = Counter({"HTTP 200": 80, "ConnectionError": 2})
PLAYED = Outcome("free", [], 1, 40, ["beat", "PostgreSQL"], KILLS, CALL_RESULTS, 90, FAILED, 6, {}, 3, 1.0)
DEATHS = [NOW + timedelta(seconds=number) for number in range(LADDERS["job"].tries)]
POISONED = Poisoning(Job(1, "ingest", "failed", LADDERS["job"].tries, 321, DIED), "failed", DEATHS, 1.0, 5)


def test_a_storm_as_planned_is_right() -> None:
    assert Storm(PLAN, [PLAYED], POISONED, 1.0).wrong == []


@pytest.mark.parametrize(
    "changed",
    [
        {"kills": KILLS[1:]},
        {"kills": []},
        {"kills": [*KILLS[1:], Kill("beat")]},
        {"failed": Counter()},
        {"failed": Counter(error=10)},
        {"failed": Counter(error=60)},
        {"back_end_calls": 0, "failed": Counter()},
    ],
)
def test_a_storm_that_was_none_is_wrong(changed: dict[str, Any]) -> None:
    assert Storm(PLAN, [replace(PLAYED, **changed)], POISONED, 1.0).wrong


def test_a_storm_without_kills_is_none() -> None:
    assert premise.wrong(replace(PLAYED, kills=[]), replace(PLAN, kills=0)) == ["nothing was killed"]


def test_kills_that_interrupted_nothing_were_no_storm_where_there_were_many() -> None:
    idle, unheard = replace(PLAYED, put_back=0), replace(PLAYED, call_results=Counter({"HTTP 200": 80}))
    many, few = replace(PLAN, kills=premise.ENOUGH), replace(PLAN, kills=premise.ENOUGH - 1)
    assert len(premise.spared([idle, idle], many)) == 1
    assert len(premise.spared([unheard, PLAYED], many)) == 1
    assert premise.spared([idle, PLAYED], many) == []
    assert premise.spared([idle, unheard], few) == []


def test_a_poison_may_kill_once_more_for_each_death_of_the_database() -> None:
    often = replace(POISONED, deaths=DEATHS + DEATHS[-2:])
    assert Storm(PLAN, [PLAYED], often, 1.0).wrong == []
    assert len(poison.wrong(often, 1)) == len(poison.wrong(replace(often, deaths=DEATHS[:1]), 1)) == 1


def test_what_was_done_beside_a_poison_is_what_was_done_between_its_deaths(
    tables: dict[str, Any],
) -> None:
    job = {"state": "done", "finished_at": DEATHS[1]}
    changes = ({"finished_at": NOW - timedelta(1)}, {"finished_at": NOW + timedelta(1)}, {"state": "failed"})
    tables[stored.JOBS] = [job, *({**job, **change} for change in changes)]
    deployment: Any = SimpleNamespace(database_url="")
    assert poison.beside(deployment, replace(POISONED, meanwhile=0)).meanwhile == 1
    assert len(poison.wrong(replace(POISONED, meanwhile=0), 0)) == 1


def test_an_answer_that_is_only_late_is_no_failure_and_a_third_fail() -> None:
    backend, calls = FaultyBackend(DISTURBED, 1), 6000
    faults = Counter(backend.next_fault() for _ in range(calls))
    assert backend.late == faults["late"] > 0
    assert backend.failed == {kind: n for kind, n in faults.items() if kind not in {None, "late"}}
    outcome = replace(PLAYED, back_end_calls=calls, failed=backend.failed)
    assert premise.wrong(outcome, PLAN) == []
    late_too = backend.failed + Counter(late=backend.late)
    assert len(premise.wrong(replace(outcome, failed=late_too), PLAN)) == 1


@pytest.fixture
def sleeper() -> Iterator[Callable[[], list[int]]]:
    """A function that returns a process's id and starts it again where it was killed."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    processes = [subprocess.Popen(command)]

    def running() -> list[int]:
        if processes[-1].poll() is not None:
            processes.append(subprocess.Popen(command))
        return [processes[-1].pid]

    yield running
    processes[-1].kill()
    processes[-1].wait()


def test_every_target_is_killed_as_often_as_planned_however_soon_the_work_ends(
    sleeper: Callable[[], list[int]],
) -> None:
    target = Target("sleeper", sleeper, lambda: True)
    killer = Killer([target], 3, 0.05, random.Random(1))
    killer.during(lambda: None)
    assert len([kill for kill in killer.kills if kill.seconds is not None]) == 3


def test_a_target_is_killed_when_it_is_busy_or_when_it_was_idle_for_too_long(
    sleeper: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.storm.killer.LONGEST_GRACE", 60.0)
    looks = iter([False, False, True])
    killer = Killer([Target("sleeper", sleeper, lambda: True, lambda: next(looks))], 1, 0.0, random.Random(1))
    killer.during(lambda: killer.keep_up(1.0))
    assert (len(killer.kills), list(looks)) == (1, [])
    monkeypatch.setattr("tests.storm.killer.LONGEST_GRACE", 0.2)
    killer = Killer([Target("sleeper", sleeper, lambda: True, lambda: False)], 1, 0.0, random.Random(1))
    killer.during(lambda: killer.keep_up(1.0))
    assert len(killer.kills) == 1


def test_work_does_not_leave_its_kills_behind(sleeper: Callable[[], list[int]]) -> None:
    killer = Killer([Target("sleeper", sleeper, lambda: True)], 4, 0.05, random.Random(1))
    kills: list[int] = []

    def work() -> None:
        for share in (0.25, 0.5, 1.0):
            killer.keep_up(share)
            kills.append(len(killer.kills))

    killer.during(work)
    assert kills[0] >= 1
    assert kills[1:] == sorted(kills[1:])
    assert kills[2] == 4


def test_work_that_breaks_off_ends_the_killing_and_a_killer_that_breaks_off_holds_nobody_up() -> None:
    def broken() -> list[int]:
        raise ZeroDivisionError

    killer = Killer([Target("nothing", broken, lambda: True)], 3, 0.0, random.Random(1))
    with pytest.raises(ZeroDivisionError):
        killer.during(lambda: killer.keep_up(1.0))
    idle = Killer([Target("nothing", list, lambda: True)], 3, 0.0, random.Random(1))
    with pytest.raises(ValueError, match="broken off"):
        idle.during(lambda: int("broken off"))
    assert idle.kills == []
