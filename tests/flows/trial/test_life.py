"""A whole life in the trial, from enrolment to its end, with survey data and fits on the way."""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any

import pytest

from models.core import jobs
from models.core.session import transact
from rehearsal.backend import Backend, EmaServer
from rehearsal.contract import Decision, Enrolment, Survey
from tests.support.study import Study
from workers.trial import ingest, refit

LENGTH = 60
DAY = date(2020, 1, 1)


@pytest.fixture
def app() -> Iterator[EmaServer]:
    """The study app's own back end, which keeps what its participants answered."""
    with EmaServer(Backend(token=None), port=0) as server:
        yield server


def survey(index: int) -> Survey:
    """Answers that take every form and every reward."""
    finished = index % 4 != 0
    return Survey(
        finished_ema=finished,
        app_use_flag=index % 8 == 0,
        activity_question_response=index % 3 == 0 if finished else None,
        cannabis_use=(float(index % 2),) * (index % 5) if finished else None,
    )


def told(answer: dict[str, Any]) -> Decision:
    """An answer of /actions as the app keeps it."""
    at = datetime.fromisoformat(answer["act_gen_timestamp"])
    names = ("rid", "action", "seed", "act_prob", "policy_id", "decision_index", "state", "fallback_level")
    return Decision(**{name: answer[name] for name in names}, act_gen_timestamp=at)


def live(study: Study, app: EmaServer, index: int, enrolment: Enrolment) -> dict[str, Any]:
    """One decision point, its window's end and the ingest of its data."""
    answers = survey(index)
    decision = study.decide("ann", **answers.fields())
    app.backend.store(enrolment, answers, told(decision))
    ingest.run(study.end("ann")["job_id"])
    return decision


def fit(study: Study) -> None:
    """What a worker does with the refit that the ingests have asked for."""
    waiting = transact(lambda session: jobs.queued_refit(session, study.study_id))
    assert waiting is not None
    refit.run(waiting.id)


def test_sixty_decisions_end_in_sixty_decisions_and_fifty_nine_learning_rows(
    new_study: Callable[..., Study], app: EmaServer
) -> None:
    url = f"http://127.0.0.1:{app.server_port}/ema_study"
    study = new_study("refit.min_interval_minutes=0", ema_url=url)
    ann = study.enrol("ann")
    enrolment = Enrolment("ann", DAY, DAY, DAY, DAY, (800,) * 7, (1900,) * 7)
    app.backend.enrol("ann")
    decisions = []
    for index in range(1, LENGTH + 1):
        decisions.append(live(study, app, index, enrolment))
        if index % 20 == 0:
            fit(study)

    assert [decision["decision_index"] for decision in decisions] == list(range(1, LENGTH + 1))
    assert {decision["policy_id"] for decision in decisions} == {0, 1, 2}
    seen = study.show(ann)
    assert (seen["phase"], seen["decision_index"], seen["study_day"]) == ("ENDED", LENGTH, 30)
    status = study.call("GET", "/study", role="researcher").json
    assert status is not None
    assert (status["decisions"], status["rows"], status["policy_rows"]) == (LENGTH, LENGTH - 1, LENGTH - 1)
    assert status["windows"] == {"ended": 0, "ingested": LENGTH, "failed": 0, "missed": 0}
    assert status["fallbacks"] == {"F0": LENGTH}
    assert status["discrepancies"] == 0
    assert status["jobs"] == {"queued": 0, "running": 0, "done": LENGTH + 3, "failed": 0}
    rows = study.rows(
        "SELECT decision_index, outcome FROM learning_rows WHERE study_id = %s ORDER BY 1", study.study_id
    )
    assert [(row["decision_index"], row["outcome"]) for row in rows] == [
        (index, reward(survey(index + 1))) for index in range(1, LENGTH)
    ]


def reward(answers: Survey) -> float:
    """3 suggestion used, 2 survey finished, 1 app used, 0 neither: of the action before these answers."""
    if answers.finished_ema:
        return 3.0 if answers.activity_question_response else 2.0
    return float(answers.app_use_flag)
