"""The play against a pretended service: a correct one, and some that each make one mistake."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from rehearsal import miwaves_people
from rehearsal.backend import Backend
from rehearsal.checks import Played
from rehearsal.contract import Decision, EndedWindow, Job, StudyReport, Survey
from rehearsal.people import Person
from rehearsal.play import ANSWERED, Rehearsal, check_report, is_settled
from tests.rehearsal.pretend import Pretended, refusal

POINTS = 30
PEOPLE = miwaves_people.people(8, POINTS, 1)
REPEATED_DECISION = "a repeat of /actions gets the same decision"
REPEATED_END = "a repeat of /end_decision_window gets the same job"


def play(service: Pretended, people: list[Person] = PEOPLE) -> Rehearsal:
    """Play the whole rehearsal up to the checks of the report."""
    rehearsal = Rehearsal(service, Backend(None), people, threads=4, seed=1)
    rehearsal.enrol()
    rehearsal.walk(lambda _more: None)
    check_report(rehearsal.ledger, rehearsal.settle(patience=0.1), rehearsal.expected())
    return rehearsal


def test_an_honest_service_passes_every_check() -> None:
    rehearsal = play(Pretended(PEOPLE))
    assert rehearsal.ledger.passed
    assert rehearsal.ledger.counts[ANSWERED] == 8 * (1 + 2 * POINTS)
    assert rehearsal.ledger.counts["rid is new"] == 8 * POINTS
    assert all(rehearsal.ledger.counts[name] > 3 for name in (REPEATED_DECISION, REPEATED_END))


def test_expected_counts() -> None:
    expected = play(Pretended(PEOPLE)).expected()
    assert (expected.participants, expected.decisions, expected.ingested) == (8, 8 * POINTS, 8 * POINTS)
    assert (expected.rows, expected.missed, expected.discrepancies) == (8 * (POINTS - 1), 0, 0)
    assert expected.fallbacks == {"F0": 8 * POINTS}


def test_a_gap_misses_points_and_rows_and_leaves_the_rest() -> None:
    gap = replace(PEOPLE[0], points=[*PEOPLE[0].points[1:10], *PEOPLE[0].points[12:20]])
    expected = play(Pretended([gap]), [gap]).expected()
    assert (expected.decisions, expected.missed, expected.rows) == (17, 3, 8 + 7)


def test_a_time_of_day_that_the_index_denies_is_expected_as_a_discrepancy() -> None:
    shifted = replace(
        PEOPLE[0], points=[replace(point, evening=not point.evening) for point in PEOPLE[0].points[:4]]
    )
    assert play(Pretended([shifted]), [shifted]).expected().discrepancies == 4


def test_the_back_end_has_what_was_played() -> None:
    rehearsal = play(Pretended(PEOPLE))
    for played in rehearsal.played:
        span = {"start_time": "2020-01-01T00:00:00+00:00", "end_time": "2100-01-01T00:00:00+00:00"}
        _, answer = rehearsal.backend.answer({"user_id": played.person.enrolment.user_id} | span)
        rids = {item["rid"] for item in answer["ema_data"].values()}
        assert rids == {decision.rid for decision in played.decisions.values()}


class DrawsAgain(Pretended):
    """A service that randomises a repeat once more."""

    def actions(self, user_id: str, index: int, time: datetime, survey: Survey) -> Decision:
        played = self.played[user_id]
        played.surveys[index] = survey
        played.decisions[index] = self.decide(played, index, time)
        return played.decisions[index]


class ForgetsJobs(Pretended):
    """A service that makes a new job at each repeat."""

    def end_decision_window(self, user_id: str, index: int) -> EndedWindow:
        self.played[user_id].jobs.pop(index, None)
        return super().end_decision_window(user_id, index)


class SameJob(Pretended):
    """A service that gives all windows of a participant the same job."""

    def end_decision_window(self, user_id: str, index: int) -> EndedWindow:
        return replace(super().end_decision_window(user_id, index), job_id=5)


class ForgetsState(Pretended):
    """A service that takes every point for a morning without any survey."""

    def decide(self, played: Played, index: int, time: datetime) -> Decision:
        return replace(super().decide(played, index, time), state=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("service", "names"),
    [
        (DrawsAgain, {REPEATED_DECISION}),
        (ForgetsJobs, {REPEATED_END}),
        (SameJob, {"each window has a job of its own"}),
        (ForgetsState, {"state follows from the answers"}),
    ],
)
def test_a_dishonest_service_is_caught(service: type[Pretended], names: set[str]) -> None:
    assert set(play(service(PEOPLE)).ledger.failed) == names


class Refuses(Pretended):
    """A service that refuses point 5 of the third participant."""

    def actions(self, user_id: str, index: int, time: datetime, survey: Survey) -> Decision:
        if (user_id, index) == ("synthetic-003", 5):
            raise refusal()
        return super().actions(user_id, index, time, survey)


def test_a_refusal_is_a_failed_check_and_the_others_go_on() -> None:
    rehearsal = play(Refuses(PEOPLE))
    assert set(rehearsal.ledger.failed) == {ANSWERED}
    assert rehearsal.ledger.failed[ANSWERED] == 1
    assert sorted({len(played.decisions) for played in rehearsal.played}) == [4, POINTS]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"participants": 9}, "participants"),
        ({"decisions": 8 * POINTS + 1}, "decisions"),
        ({"windows": {"ingested": 8 * POINTS - 1, "failed": 1}}, "windows waiting or failed"),
        ({"windows": {"ingested": 8 * POINTS - 1}}, "windows ingested"),
        ({"windows": {"ingested": 8 * POINTS, "missed": 1}}, "decision points missed"),
        ({"discrepancies": 1}, "discrepancies"),
        ({"fallbacks": {"F0": 8 * POINTS - 1, "F2": 1}}, "fallbacks"),
        ({"rows": 1}, "learning rows"),
        ({"policy_rows": 1}, "rows in the policy that serves"),
        ({"jobs": {"running": 1}}, "jobs queued or running"),
        ({"jobs": {"queued": 1}}, "jobs queued or running"),
        ({"jobs": {"failed": 1}}, "jobs failed"),
    ],
)
def test_a_wrong_count_in_the_report_is_caught(change: dict[str, Any], name: str) -> None:
    rehearsal = play(Pretended(PEOPLE))
    check_report(rehearsal.ledger, replace(rehearsal.client.study(), **change), rehearsal.expected())
    assert name in rehearsal.ledger.failed


@pytest.mark.parametrize(
    "change",
    [
        {"windows": {"ingested": 8 * POINTS - 1}},
        {"jobs": {"queued": 1}},
        {"jobs": {"running": 1}},
        {"policy_rows": 1},
        {"rows": 1, "policy_rows": 1},
    ],
)
def test_nothing_is_settled_before_all_is_ingested_and_learnt(change: dict[str, Any]) -> None:
    rehearsal = play(Pretended(PEOPLE))
    report, expected = rehearsal.client.study(), rehearsal.expected()
    assert is_settled(report, expected)
    assert not is_settled(replace(report, **change), expected)


class LosesWindows(Pretended):
    """A service that never ingests the windows of point 7."""

    def study(self) -> StudyReport:
        lost = sum(7 in played.jobs for played in self.played.values())
        report = super().study()
        return replace(report, windows={"ingested": report.windows["ingested"] - lost, "ended": lost})

    def job(self, job_id: int) -> Job:
        lost = any(played.jobs.get(7) == job_id for played in self.played.values())
        return (
            replace(super().job(job_id), state="queued", reason="no answer") if lost else super().job(job_id)
        )


def test_windows_that_are_never_ingested_are_named_after_the_patience() -> None:
    service = LosesWindows(PEOPLE)
    rehearsal = play(service)
    assert {"windows ingested", "windows waiting or failed"} == set(rehearsal.ledger.failed)
    assert rehearsal.not_ingested() == [
        f"synthetic-{n:03} window 7: job {service.played[f'synthetic-{n:03}'].jobs[7]} queued, no answer"
        for n in range(1, 9)
    ]


class Refits(Pretended):
    """A service whose jobs are in the state that a test sets."""

    state = "done"

    def job(self, job_id: int) -> Job:
        return replace(super().job(job_id), state=self.state)


@pytest.mark.parametrize(("state", "passed"), [("done", True), ("failed", False), ("running", False)])
def test_a_refit_on_request_must_be_done_in_time(state: str, passed: bool) -> None:
    service = Refits(PEOPLE)
    service.state = state
    rehearsal = Rehearsal(service, Backend(None), PEOPLE, threads=1, seed=1)
    rehearsal.refit(patience=0.1)
    assert rehearsal.ledger.passed is passed
