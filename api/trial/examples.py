"""One call and its answer for each of these operations, as the OpenAPI document shows them."""

from typing import Any

from api.core.examples import Example

WEEK_OF_MORNINGS = [800, 800, 800, 800, 800, 930, 930]
WEEK_OF_EVENINGS = [1900, 1900, 1900, 1900, 1900, 2000, 2000]


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
}
