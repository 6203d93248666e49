"""What becomes of a window for every answer that a study's back end may give."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, text

from models.core import jobs
from models.core.jobs import OWN_FAULT, Job
from models.core.session import transact
from tests.support.backend import BackEnd
from tests.support.service import Service
from tests.support.study import Study, begin
from workers.trial import ema_client, ingest, refit

FINISHED = {
    "finished_ema": True,
    "app_use_flag": False,
    "activity_question_response": True,
    "cannabis_use": [2],
}


def decide_and_end(study: Study, user_id: str = "ann") -> tuple[dict[str, Any], int]:
    """The decision of a participant's next point, and the ingest job of its ended window."""
    decided = study.decide(user_id)
    return decided, int(study.end(user_id)["job_id"])


def item(decided: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The item that an honest back end has for a decision."""
    issued = {name: decided[name] for name in ("seed", "act_prob", "policy_id", "decision_index", "rid")}
    honest = {
        "user_id": "ann",
        "finished_ema": False,
        "app_use_flag": False,
        "action_taken": decided["action"],
        "act_gen_timestamp": decided["act_gen_timestamp"],
        "message_notification_sent_time": "NA",
    }
    return {**honest, **issued, **changes}


def outcome(study: Study, job_id: int) -> tuple[str, int | None, str]:
    """State and code of the job, and the state of the newest window."""
    job = study.job(job_id)
    window = study.call("GET", "/windows", role="researcher").get_json()["windows"][-1]
    return job["state"], job["code"], window["state"]


def discrepancies(study: Study) -> int:
    return int(study.call("GET", "/study", role="researcher").get_json()["discrepancies"])


def test_an_honest_item_is_stored_and_learnt_from(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    for _ in range(2):
        decided, job_id = decide_and_end(ema_study)
        back_end.has(item(decided))
        ingest.run(job_id)
        assert outcome(ema_study, job_id) == ("done", None, "ingested")
    assert discrepancies(ema_study) == 0
    job_id = ema_study.call("POST", "/update_parameters").get_json()["job_id"]
    refit.run(job_id)
    state = ema_study.call("GET", "/study", role="researcher").get_json()
    assert (state["policy_id"], state["policy_rows"], state["rows"]) == (1, 1, 1)


def refits_after_an_ingest(study: Study, back_end: BackEnd) -> list[Job]:
    """The fits of a study, after one window of ann's was ingested."""
    study.enrol("ann")
    decided, job_id = decide_and_end(study)
    back_end.has(item(decided))
    ingest.run(job_id)
    assert outcome(study, job_id) == ("done", None, "ingested")
    query = select(Job).where(Job.kind == jobs.REFIT).order_by(Job.id)
    return transact(lambda session: list(session.scalars(query)))


def test_a_study_that_learns_by_night_alone_asks_for_no_fit(service: Service, back_end: BackEnd) -> None:
    study = begin(service, "refit.nightly_only=true", ema_url=back_end.url)
    assert refits_after_an_ingest(study, back_end) == []


def test_a_fit_comes_no_sooner_after_the_last_one_than_the_protocol_says(
    service: Service, back_end: BackEnd
) -> None:
    study = begin(service, "refit.min_interval_minutes=7", ema_url=back_end.url)
    study.enrol("ann")
    first = study.call("POST", "/update_parameters").get_json()["job_id"]
    refit.run(first)
    done, waiting = refits_after_an_ingest(study, back_end)
    assert done.finished_at is not None
    assert waiting.run_after == done.finished_at + timedelta(minutes=7)
    assert transact(partial(jobs.claim, job_id=waiting.id, now=datetime.now(UTC))) is None


def test_the_back_end_is_asked_for_one_participant_in_one_span(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided))
    ingest.run(job_id)
    (asked,) = back_end.asked
    assert asked["user_id"] == "ann"
    start, decided_at, end = (
        datetime.fromisoformat(text)
        for text in (asked["start_time"], decided["act_gen_timestamp"], asked["end_time"])
    )
    assert start == decided_at - timedelta(hours=3)
    assert end > decided_at


def test_a_job_is_done_once_however_often_its_message_comes(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided))
    for _ in range(3):
        ingest.run(job_id)
    assert len(back_end.asked) == 1


@pytest.mark.parametrize(
    ("field", "reported", "code"),
    [
        ("action_taken", lambda decided: 1 - decided["action"], 304),
        ("seed", lambda _: 1, 305),
        ("act_prob", lambda _: 0.5, 306),
        ("policy_id", lambda _: 7, 307),
        ("decision_index", lambda _: 2, 308),
        ("act_gen_timestamp", lambda _: "2026-01-01T00:00:00Z", 309),
        ("act_gen_timestamp", lambda _: "2026-01-01T00:00:00+20:00", 309),  # kept as text: it may say so
    ],
)
def test_what_differs_from_what_was_issued_is_a_discrepancy(
    ema_study: Study, back_end: BackEnd, field: str, reported: Callable[[dict[str, Any]], Any], code: int
) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided, **{field: reported(decided)}))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("done", None, "ingested")
    found = transact(lambda session: session.execute(text("SELECT field, code FROM discrepancies")).all())
    assert [tuple(row) for row in found] == [(field, code)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"action_taken": 2}, 304),
        ({"seed": "five"}, 305),
        ({"act_prob": 1.5}, 306),
        ({"policy_id": 0.5}, 307),
        ({"decision_index": 0}, 308),
        ({"act_gen_timestamp": "yesterday"}, 309),
        ({"rid": -1}, 310),
        ({"timestamp_finished_ema": "soon"}, 311),
        ({"message_notification_sent_time": "late"}, 312),
        ({"message_notification_sent_time": "2026-01-01\x0000:00:00"}, 312),
        ({"message_notification_click_time": 5}, 313),
        ({"morning_notification_time_start": [800] * 6}, 314),
        ({"evening_notification_time_start": [1960] * 7}, 315),
    ],
)
def test_a_wrong_field_fails_the_window_with_its_code(
    ema_study: Study, back_end: BackEnd, change: dict[str, Any], code: int
) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided, **change))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", code, "failed")


def test_rids_of_others_and_of_nobody_are_discrepancies(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    ema_study.enrol("bob")
    others = ema_study.decide("bob")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided), item(decided, rid=others["rid"]), item(decided, rid=10**6))
    ingest.run(job_id)
    assert outcome(ema_study, job_id)[0] == "done"
    assert discrepancies(ema_study) == 2


def test_two_items_for_one_decision_fail_the_window(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided), item(decided, app_use_flag=True))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 318, "failed")


@pytest.mark.parametrize(
    ("status", "body", "state", "code"),
    [
        (200, {"status": "fail", "message": "no such user"}, "failed", 316),
        (200, {"status": "failure"}, "failed", 316),
        (200, {"status": "success", "ema_data": {}}, "failed", 317),
        (200, {"status": "success", "ema_data": []}, "failed", 317),
        (200, {"status": "success", "ema_data": None}, "failed", 316),
        (200, {"status": "success", "ema_data": [1]}, "failed", 316),
        (200, {"status": "success"}, "failed", 316),
        (200, {"status": "error", "ema_data": {}}, "failed", 320),
        (200, {"status": [], "ema_data": {}}, "failed", 320),
        (200, {"ema_data": {}}, "failed", 320),
        (200, ["success"], "failed", 320),
        (200, b"<html>", "queued", 320),
        (200, b"[" * 100_000, "queued", 320),
        (200, b" " * (5 * 1024 * 1024), "failed", 320),
        (401, {}, "failed", 316),
        (403, {}, "failed", 316),
        (404, {}, "failed", 320),
        (302, {}, "failed", 320),
        (429, {}, "queued", 320),
        (500, {}, "queued", 320),
    ],
)
def test_every_other_answer_is_retried_or_fails_with_its_code(
    ema_study: Study, back_end: BackEnd, status: int, body: Any, state: str, code: int
) -> None:
    ema_study.enrol("ann")
    _, job_id = decide_and_end(ema_study)
    back_end.status, back_end.body, back_end.headers = status, body, {"Location": "http://127.0.0.1:1/"}
    ingest.run(job_id)
    assert outcome(ema_study, job_id)[:2] == (state, code)
    assert len(back_end.asked) == 1


def test_a_failed_window_can_be_retried_by_hand(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    ingest.run(job_id)
    assert outcome(ema_study, job_id)[0] == "failed"
    window = ema_study.call("GET", "/windows?state=failed", role="researcher").get_json()["windows"][0][
        "window_id"
    ]
    assert ema_study.call("POST", f"/windows/{window}/retry", role="admin").status_code == 202
    back_end.has(item(decided))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("done", None, "ingested")


def write(statement: str, **values: Any) -> None:
    transact(lambda session: session.execute(text(statement), values))


def test_a_token_under_no_known_key_fails_no_window(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided))
    keep = "UPDATE studies SET ema_token = CAST(:token AS bytea)"
    write(keep, token=b"under a key that is gone")
    for _ in range(8):
        ingest.run(job_id)
        write("UPDATE jobs SET run_after = now()")
    assert outcome(ema_study, job_id) == ("queued", OWN_FAULT, "ended")
    assert back_end.asked == []
    write(keep, token=None)
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("done", None, "ingested")


def test_answers_that_come_between_the_claim_and_the_store_are_kept_too(
    ema_study: Study, back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided))
    really = ema_client.survey_data

    def meanwhile(query: ema_client.Query) -> list[dict[str, Any]]:
        assert ema_study.decide("ann", decision_index=1, app_use_flag=True)["correction_stored"]
        return really(query)

    monkeypatch.setattr(ema_client, "survey_data", meanwhile)
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("done", None, "ingested")
    stored = "SELECT version, source FROM answers ORDER BY version"
    found = transact(lambda session: session.execute(text(stored)).all())
    assert [tuple(row) for row in found] == [(1, "actions"), (2, "ema")]
