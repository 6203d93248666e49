"""One call and its answer for each of these operations, as the OpenAPI document shows them."""

from typing import Any, NamedTuple

TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"  # noqa: S105


class Example(NamedTuple):
    """A call: the body that is sent (None where there is none), and the body that comes back."""

    body: dict[str, Any] | None
    reply: dict[str, Any]


EXAMPLES = {
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
}
