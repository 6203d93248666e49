"""Reports of a study's back end that correct an outcome, and reports that correct those."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from models.core import jobs
from models.core.session import transact
from models.trial import answers
from models.trial.answers import Answer
from models.trial.decisions import Decision
from replay.checks import replay
from tests.support.backend import BackEnd
from tests.support.study import Study
from tests.workers.trial.test_ingest import FINISHED, decide_and_end, item, outcome
from workers.trial import ingest, refit

IN_TIME = {**FINISHED, "timestamp_finished_ema": "2026-01-01T00:00:00Z"}


def rows(statement: str) -> list[tuple[Any, ...]]:
    found = transact(lambda session: session.execute(text(statement)).all())
    return [tuple(row) for row in found]


def fit_what_was_asked_for() -> None:
    asked = transact(lambda session: jobs.queued_refit(session, 1))
    assert asked is not None
    refit.run(asked.id)


def corrected_second(study: Study, back_end: BackEnd) -> dict[str, Any]:
    """The second of two decisions, whose outcome a report that was finished in time has corrected."""
    study.enrol("ann")
    decide_and_end(study)
    decided, job_id = decide_and_end(study)
    back_end.has(item(decided, **IN_TIME))
    ingest.run(job_id)
    return decided


def test_a_correction_of_an_answer_given_in_time_changes_the_outcome_alone(
    ema_study: Study, back_end: BackEnd
) -> None:
    decided = corrected_second(ema_study, back_end)
    corrected = ema_study.call("GET", "/decisions", role="researcher").get_json()["decisions"][-1]
    assert corrected["state"] == decided["state"]
    third = ema_study.decide("ann")
    assert third["state"][0] == 0  # rewards 0, 3 (corrected from 0), 0: their mean is 1


def test_a_report_that_is_taken_back_leaves_the_outcome_decided_with(
    ema_study: Study, back_end: BackEnd, tmp_path: Path
) -> None:
    """Finished before the draw by the first report, after it by the second."""
    decided = corrected_second(ema_study, back_end)
    fit_what_was_asked_for()
    learnt = "SELECT decision_index, outcome FROM learning_rows ORDER BY row_seq"
    assert rows(learnt) == [(1, 3.0)]

    third, job_id = decide_and_end(ema_study)
    late = datetime.fromisoformat(decided["act_gen_timestamp"]) + timedelta(hours=1)
    taken_back = item(decided, **FINISHED, timestamp_finished_ema=late.isoformat())
    back_end.has(taken_back, item(third))
    ingest.run(job_id)
    fit_what_was_asked_for()
    assert rows(learnt) == [(1, 3.0), (1, 0.0), (2, 0.0)]
    assert rows("SELECT corrections FROM participants") == [(2,)]
    noted = "SELECT before -> 'outcome', after -> 'outcome' FROM audit WHERE act = 'correct' ORDER BY seq"
    assert rows(noted) == [(0, 3), (3, 0)]
    export = ["export", "trial", str(tmp_path / "out"), "--account", "admin@trial"]
    assert ema_study.service.app.test_cli_runner().invoke(args=export).exit_code == 0
    report = replay(tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_a_state_knows_nothing_of_a_report_that_was_taken_back(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided, **IN_TIME))
    ingest.run(job_id)
    _, job_id = decide_and_end(ema_study)
    back_end.has(item(decided, **FINISHED))
    ingest.run(job_id)
    last = ema_study.decide("ann", **FINISHED)
    assert last["state"][0] == 0  # rewards 0, 0 and 3; their mean would be 2 with 3 in place of the first


@pytest.mark.parametrize(
    ("decided_with", "reports", "counts"),
    [
        (1.0, [], 1.0),
        (1.0, [3.0, 2.0], 2.0),
        (1.0, [3.0, None], 1.0),
        (None, [], None),
        (None, [3.0, None], 3.0),  # there is nothing to go back to
        (None, [None], None),
    ],
)
def test_the_latest_report_counts_or_what_the_decision_was_made_with(
    decided_with: float | None, reports: list[float | None], counts: float | None
) -> None:
    of_the_app = Answer(source="actions", reward=None)
    found = [*(Answer(source="ema", reward=reward) for reward in reports), of_the_app]
    assert answers.outcome(Decision(reward=decided_with), found) == counts


def test_a_correction_is_learnt_from_though_the_reply_has_nothing_for_its_own_window(
    ema_study: Study, back_end: BackEnd
) -> None:
    ema_study.enrol("ann")
    decide_and_end(ema_study)
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided))
    ingest.run(job_id)
    fit_what_was_asked_for()
    _, job_id = decide_and_end(ema_study)
    back_end.has(item(decided, **IN_TIME))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 317, "failed")
    fit_what_was_asked_for()
    assert (1, 3.0) in rows("SELECT decision_index, outcome FROM learning_rows")


def test_a_reply_that_changes_nothing_and_fails_asks_for_no_fit(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, _ = decide_and_end(ema_study)
    _, next_one = decide_and_end(ema_study)
    back_end.has(item(decided))
    ingest.run(next_one)
    assert outcome(ema_study, next_one) == ("failed", 317, "failed")
    assert transact(lambda session: jobs.queued_refit(session, 1)) is None
