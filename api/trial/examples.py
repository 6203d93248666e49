"""One call and its answer for each core operation, as the OpenAPI document shows them."""

from typing import Any, NamedTuple

WEEK_OF_MORNINGS = [800, 800, 800, 800, 800, 930, 930]
WEEK_OF_EVENINGS = [1900, 1900, 1900, 1900, 1900, 2000, 2000]
TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"  # noqa: S105


class Example(NamedTuple):
    """A body that is sent (None where there is none) and a body that comes back."""

    asked: dict[str, Any] | None
    answered: dict[str, Any]


def _queued(job_id: int) -> dict[str, Any]:
    return {"status": "success", "job_id": job_id, "status_url": f"/jobs/{job_id}"}


EXAMPLES = {
    "register": Example(
        {
            "user_id": "p-017",
            "rl_start_date": "2026-12-01",
            "rl_end_date": "2026-12-30",
            "consent_start_date": "2026-11-20",
            "consent_end_date": "2027-01-31",
            "morning_notification_time_start": WEEK_OF_MORNINGS,
            "evening_notification_time_start": WEEK_OF_EVENINGS,
            "timezone": "America/New_York",
        },
        {"status": "success", "message": "User p-017 was added!", "participant_id": 17},
    ),
    "decide": Example(
        {
            "user_id": "p-017",
            "finished_ema": True,
            "app_use_flag": False,
            "activity_question_response": True,
            "cannabis_use": [],
            "decision_index": 1,
            "decision_time": "2026-12-01T08:05:00-05:00",
        },
        {
            "status": "success",
            "rid": 4711,
            "action": 0,
            "seed": 4612345678901234,
            "act_prob": 0.4399196909,
            "policy_id": 0,
            "decision_index": 1,
            "act_gen_timestamp": "2026-12-01T13:05:00.123456Z",
            "state": [1.0, 0.0, 1.0],
            "fallback_level": "F0",
            "available": True,
            "unavailable_rule": None,
            "correction_stored": False,
        },
    ),
    "decide_point": Example(
        {
            "user_id": "p-017",
            "answers": {},
            "decision_index": 2,
            "decision_time": "2026-12-01T19:05:00-05:00",
        },
        {
            "status": "success",
            "rid": 4712,
            "action": 1,
            "seed": 2612345678901234,
            "act_prob": 0.4137082126,
            "policy_id": 0,
            "decision_index": 2,
            "act_gen_timestamp": "2026-12-02T00:05:00.123456Z",
            "state": [1.0, 0.0, 0.125, -1.0],
            "fallback_level": "F0",
            "available": True,
            "unavailable_rule": None,
            "correction_stored": False,
        },
    ),
    "end_decision_window": Example(
        {"user_id": "p-017", "decision_index": 1},
        {
            "status": "success",
            "message": "Decision window ended.",
            "decision_index": 1,
            "job_id": 99,
            "status_url": "/jobs/99",
        },
    ),
    "update_parameters": Example(None, _queued(100)),
    "update_hyperparameters": Example(None, _queued(101)),
    "show_job": Example(
        None,
        {
            "status": "success",
            "job": {
                "job_id": 99,
                "kind": "ingest",
                "state": "done",
                "attempts": 1,
                "code": None,
                "reason": None,
                "policy_id": None,
                "note": None,
                "created_at": "2026-12-01T23:59:00.123456Z",
                "run_after": "2026-12-01T23:59:00.123456Z",
                "finished_at": "2026-12-01T23:59:01.123456Z",
            },
        },
    ),
    "register_client": Example(
        {
            "api_user": "miwaves-app",
            "api_pass": "a long random password",
            "registration_token": "given to you by the deployment's operator",
        },
        {"status": "success", "auth_token": TOKEN},
    ),
    "login": Example(
        {"api_user": "miwaves-app", "api_pass": "a long random password"},
        {"status": "success", "auth_token": TOKEN},
    ),
    "logout": Example(None, {"status": "success"}),
}
