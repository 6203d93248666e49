"""The log lines of requests and tasks, as the processes of a running stack wrote them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from local.stack import Stack
from tests.support import remote
from tests.support.backend import BackEnd
from tests.support.study import REGISTRATION

NAME = "yara-whose-name-is-private"
REQUEST_ID = "a-request-of-a-test"


def lines(log: Path) -> list[dict[str, Any]]:
    """Every line of a log that is JSON."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def wait(found: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    for _ in range(300):
        if lines_found := found():
            return lines_found[0]
        time.sleep(0.1)
    pytest.fail("there is no such line")


@pytest.fixture
def logs(stack: Stack, passable: Path, back_end: BackEnd) -> dict[str, Path]:
    """The logs by process, after one window of a participant was decided, ended and asked for."""
    settings = ("--ema-url", back_end.url, "--set", "refit.min_interval_minutes=0")
    study = f"lines-{time.monotonic_ns()}"
    remote.command(stack.env, "study", "create", study, *settings)
    made = remote.command(stack.env, "client", "create", study, "--study", study, "--role", "admin")
    caller = remote.Remote(stack.api_url, remote_token(stack, study, made["password"]))
    caller.post("/register", {"user_id": NAME, **REGISTRATION})
    caller.post_actions(NAME, decision_index=1)
    end(stack, caller)
    return {path.stem: path for path in passable.rglob("*.log")}


def remote_token(stack: Stack, name: str, password: str) -> str:
    body = {"api_user": name, "api_pass": password}
    return str(requests.post(f"{stack.api_url}/auth/login", json=body, timeout=60).json()["auth_token"])


def end(stack: Stack, caller: remote.Remote) -> None:
    answer = requests.post(
        f"{stack.api_url}/end_decision_window",
        json={"user_id": NAME, "decision_index": 1},
        headers={"Authorization": f"Bearer {caller.token}", "X-Request-ID": REQUEST_ID},
        timeout=60,
    )
    assert answer.status_code == 202, answer.text


def test_a_request_and_its_task_are_one_line_each_under_one_id(logs: dict[str, Path]) -> None:
    def of(log: str, event: str) -> list[dict[str, Any]]:
        found = lines(logs[log])
        return [one for one in found if one["event"] == event and one.get("request_id") == REQUEST_ID]

    asked = wait(lambda: of("api", "request"))
    assert (asked["route"], asked["http_status"], asked["method"]) == ("/end_decision_window", 202, "POST")
    done = wait(lambda: [one for one in of("worker", "task") if one["task"] == "kairos.ingest"])
    assert done["job_id"] == asked["job_id"]
    assert done["study_id"] == asked["study_id"] > 0
    assert done["outcome"] == "success"
    assert done["ms"] > 0
    assert asked["ms"] > 0
    assert len([one for one in of("worker", "task") if one["job_id"] == asked["job_id"]]) == 1


def test_all_that_gunicorn_celery_and_beat_say_is_json(logs: dict[str, Path]) -> None:
    wait(lambda: [one for one in lines(logs["worker"]) if one.get("task") == "kairos.sweep"])
    assert [one for one in lines(logs["api"]) if one.get("logger") == "gunicorn.error"]
    for name in ("api", "worker", "beat"):
        written = logs[name].read_text()
        plain = [line for line in written.splitlines() if " INFO" in line or "ERROR" in line]
        assert plain == [], name
        assert NAME not in written
