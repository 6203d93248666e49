"""What was known when: the rehearsed trial stretched over days, so that hardly anything is ambiguous."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from replay import decisions, fits, learning_rows
from replay.findings import Report
from replay.format import reading
from replay.format.long_table import Row
from replay.known_when import Known, possible, possible_rewards
from replay.tables import Study
from tests.replay.conftest import Rehearsed

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
STRETCH = 100_000


def versions(*stored: tuple[timedelta, float | None], first: float | None = 0.0) -> Study:
    """A study with one decision, with reward `first`, and versions of its answers stored so long before."""
    tables: dict[str, list[Row]] = {name: [] for name in ("participants", "protocols", "windows", "policies")}
    tables |= {name: [] for name in ("participant_zones", "discrepancies", "policy_blocks", "learning_rows")}
    tables["decisions"] = [
        {"id": 1, "participant_id": 1, "decision_index": 1, "reward": first, "answers": {}}
    ]
    tables["answers"] = [
        {
            "decision_id": 1,
            "version": at,
            "source": "ema",
            "reward": reward,
            "created_at": AT - ago,
            "item": {"seen": reward},
        }
        for at, (ago, reward) in enumerate(stored, 1)
    ]
    return Study(tables, {}, AT)


def known(*stored: tuple[timedelta, float | None]) -> list[float | None]:
    study = versions(*stored)
    return possible_rewards(study, study.decisions[1], AT)


def test_the_latest_version_that_was_surely_stored_counts() -> None:
    hour = timedelta(hours=1)
    assert known() == [0.0]
    assert known((3 * hour, 2.0), (2 * hour, 3.0)) == [3.0]


def test_a_report_without_a_reward_takes_back_what_an_earlier_one_said() -> None:
    hour, moment = timedelta(hours=1), timedelta(seconds=2)
    assert known((2 * hour, 3.0), (hour, None)) == [0.0]
    assert known((2 * hour, 3.0), (moment, None)) == [0.0, 3.0]


def test_a_later_version_was_not_known() -> None:
    assert known((-timedelta(hours=1), 3.0)) == [0.0]


def test_a_version_stored_just_before_may_have_been_seen_or_not() -> None:
    assert known((timedelta(seconds=2), 3.0)) == [3.0, 0.0]
    assert known((-timedelta(seconds=2), 3.0)) == [0.0, 3.0]


def test_answers_that_told_the_first_reward_are_known_with_it() -> None:
    hour = timedelta(hours=1)
    study = versions((2 * hour, 2.0), (hour, 3.0), (timedelta(seconds=2), None), first=None)
    assert possible(study, study.decisions[1], AT) == [Known({"seen": 3.0}, 3.0)]
    study = versions((timedelta(seconds=2), 3.0), first=None)
    assert possible(study, study.decisions[1], AT) == [Known({"seen": 3.0}, 3.0), Known({}, None)]
    study = versions((hour, 3.0))
    assert possible(study, study.decisions[1], AT) == [Known({}, 3.0)]


def stretched(value: Any, begin: datetime) -> Any:
    return begin + (value - begin) * STRETCH if isinstance(value, datetime) else value


def test_states_and_learning_rows_follow_from_what_was_known_then(rehearsed: Rehearsed) -> None:
    facts = reading.manifest(rehearsed.folder)
    begin = datetime.fromisoformat(facts.as_of)
    tables = {name: reading.table(rehearsed.folder, name, facts, Report()) for name in facts.tables}
    for table in ("decisions", "answers", "learning_rows", "policies", "audit"):
        tables[table] = [
            {name: stretched(value, begin) for name, value in row.items()}
            for row in copy.deepcopy(tables[table])
        ]
    study, report = Study(tables, facts.study.model_dump(), begin), Report()
    fits.check(study, report)
    decisions.check(study, report, rehearsed.key)
    learning_rows.check(study, report)
    learning_rows.complete(study, report)
    report.first.pop("availability", None)  # other hours are quiet ones, in the other order of days
    assert not report.first, "\n".join(report.lines())
    ambiguous = [
        decision["id"]
        for decision in study.tables["decisions"]
        for at in (decision["act_gen_timestamp"],)
        if any(len(possible_rewards(study, other, at)) > 1 for other in _before(study, decision))
    ]
    assert len(ambiguous) < 5


def _before(study: Study, decision: Row) -> list[Row]:
    person, index = decision["participant_id"], decision["decision_index"]
    found = [study.points.get((person, index - back)) for back in (1, 2)]
    return [row for row in found if row is not None]
