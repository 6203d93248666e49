"""What leaves the service: no name of a participant, no secret, in no log and in no failure."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
import requests
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.core import errors, health
from local.embedded import Embedded
from local.stack import Stack
from models.core.session import transact
from services.trial import enrolment
from tests.local.families import eventually
from tests.support import remote
from tests.support.backend import BackEnd, serving
from tests.support.configured import configured
from tests.support.service import NOT_FINISHED, REGISTRATION
from tests.support.study import Trial

NAME = "zoe-whose-name-is-private"
PASSWORD = "a-password-that-was-mistyped"
EMA_TOKEN = "the-token-of-the-back-end"


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    with serving() as served:
        yield served


def test_a_whole_run_writes_neither_names_nor_secrets(
    stack: Stack, passable: Path, back_end: BackEnd
) -> None:
    """API, worker, beat, database and broker, through successes and failures; then every log is read."""
    environment = {**stack.env, "KAIROS_EMA_TOKEN": EMA_TOKEN}
    settings = ("--ema-url", back_end.url, "--set", "refit.min_interval_minutes=0")
    remote.command(environment, "study", "create", "exposure", *settings)
    made = remote.command(environment, "client", "create", NAME[:4], "--study", "exposure", "--role", "admin")
    token = _log_in(stack, NAME[:4], made["password"])
    _log_in(stack, NAME, PASSWORD, status=401)
    caller = remote.Remote(stack.api_url, token)
    _live(caller, back_end)
    assert back_end.tokens[0] == f"Bearer {EMA_TOKEN}"
    written = {path: path.read_bytes() for path in passable.rglob("*.log")}
    assert {"api.log", "worker.log", "beat.log"} <= {path.name for path in written}
    secrets = [NAME, PASSWORD, EMA_TOKEN, token, made["password"], stack.env["KAIROS_SIGNING_KEYS"]]
    secrets.append(stack.env["KAIROS_SECRETS_KEYS"])
    assert any(b"window ingested" in log for log in written.values())
    assert [
        (path.name, secret) for path, log in written.items() for secret in secrets if secret.encode() in log
    ] == []


def test_what_fails_in_the_database_is_not_quoted_in_its_log(
    stack: Stack, embedded: Embedded, passable: Path
) -> None:
    """Lost races, which are run again, and what else PostgreSQL says more of than its message."""
    caller = remote.begin(stack.env, stack.api_url)
    (log,) = (passable / "state").rglob("db.log")
    before = log.stat().st_size

    def told() -> bytes:
        return log.read_bytes()[before:]

    with ThreadPoolExecutor(16) as pool:
        for number in range(100):
            _race(caller, pool, f"{NAME} {number}")
            if all(lost in told() for lost in (b"could not serialize access", b"duplicate key value")):
                break
        else:
            pytest.fail("no race was lost")
    _break(stack.env["DATABASE_URL"].replace("+psycopg2", ""))
    assert eventually(lambda: b"was terminated by signal 9" in told() and embedded.postgres.ready())
    assert b"extra data after last expected column" in told()
    assert NAME.encode() not in told()


def _race(caller: remote.Remote, pool: ThreadPoolExecutor, name: str) -> None:
    """Every call for one participant, many times at once."""
    for _ in pool.map(lambda _: caller.enrol(name), range(16)):
        pass
    for index in (1, 2):
        decided = pool.map(lambda index: caller.actions(name, decision_index=index), [index] * 16)
        ended = pool.map(lambda index: caller.end_window(name, decision_index=index), [index] * 16)
        assert {answer.status_code for answer in decided} == {200}
        assert {answer.status_code for answer in ended} <= {202, 409}  # before there is a decision


def _break(database_url: str) -> None:
    """A line that cannot be copied, and a backend that dies at work."""
    with closing(psycopg2.connect(database_url)) as link, link.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE people (name text)")
        with pytest.raises(psycopg2.Error, match=NAME):
            cursor.copy_expert("COPY people FROM STDIN", StringIO(f"{NAME}\tmore\n"))
        link.rollback()
        cursor.execute("SELECT %s", (NAME,))
        os.kill(link.info.backend_pid, signal.SIGKILL)


def _log_in(stack: Stack, name: str, password: str, status: int = 200) -> str:
    body = {"api_user": name, "api_pass": password}
    answer = requests.post(f"{stack.api_url}/auth/login", json=body, timeout=60)
    assert answer.status_code == status
    return str(answer.json().get("auth_token"))


def _live(caller: remote.Remote, back_end: BackEnd) -> None:
    """Decisions and their data, then everything that is refused with the name in it."""
    back_end.has({"user_id": NAME, "rid": NAME})  # an item that cannot be read
    caller.enrol(NAME)
    for index in (1, 2):
        decided = caller.actions(NAME, decision_index=index).json()
        issued = ("seed", "act_prob", "policy_id", "decision_index", "rid", "act_gen_timestamp")
        if index == 2:
            back_end.has(
                {name: decided[name] for name in issued}
                | {"user_id": NAME, "action_taken": decided["action"], **NOT_FINISHED}
            )
        job = caller.post("/end_decision_window", {"user_id": NAME, "decision_index": index}).json()
        _wait_for(caller, job["status_url"])
    for path, body in (
        ("/register", {"user_id": NAME, **REGISTRATION, "rl_end_date": "2098-01-01"}),
        ("/register", {"user_id": NAME * 20, **REGISTRATION}),
        ("/actions", {"user_id": NAME, "decision_index": 1000, **NOT_FINISHED}),
        ("/actions", {"user_id": NAME + "\n", **NOT_FINISHED}),
        ("/end_decision_window", {"user_id": NAME, "decision_index": 9}),
        (f"/{NAME}", {}),
    ):
        answer = caller.post(path, body)
        assert 400 <= answer.status_code < 500
        assert NAME not in answer.text
    caller.get(f"/participants?user_id={NAME}")


def _wait_for(caller: remote.Remote, job: str) -> None:
    for _ in range(600):
        if caller.get(job)["job"]["state"] in {"done", "failed"}:
            return
        time.sleep(0.1)
    pytest.fail("the job was not finished")


def test_the_register_answer_alone_says_the_name_again(trial: Trial) -> None:
    body = {"user_id": NAME, **REGISTRATION}
    assert trial.call("POST", "/register", body).get_json()["message"] == f"User {NAME} was added!"
    for path, role in (("/participants", "admin"), ("/study", "client"), ("/windows", "admin")):
        assert NAME not in trial.call("GET", path, role=role).text


def _says_the_name(session: Session, *_: Any) -> Any:
    raise LookupError(f"no {NAME}")


def _breaks_a_constraint(session: Session, *_: Any) -> Any:
    session.execute(text("INSERT INTO studies (name) VALUES (:name)"), {"name": NAME})


@pytest.mark.parametrize("failure", [_says_the_name, _breaks_a_constraint])
def test_an_unforeseen_failure_is_told_by_its_place_alone(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, failure: Callable[..., Any]
) -> None:
    written: list[str] = []

    def error(event: str, **more: object) -> None:
        written.append(f"{event} {more}")

    monkeypatch.setattr(errors, "log", SimpleNamespace(error=error))
    monkeypatch.setattr(enrolment, "enrol", failure)
    answer = trial.call("POST", "/register", {"user_id": NAME, **REGISTRATION})
    assert (answer.status_code, answer.get_json()["error_code"]) == (500, 909)
    assert set(answer.get_json()) == {"status", "message", "error_code"}
    (line,) = written
    assert failure.__name__ in line
    assert NAME not in line


def test_the_parts_that_are_silent_are_told_to_who_may_know(
    embedded: Embedded, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 3600)
    production = {"KAIROS_MODE": "production", "KAIROS_REGISTRATION": "closed", "KAIROS_TLS_TERMINATED": "1"}
    with configured(embedded, fresh_database, **production) as service:
        service.command("study", "create", "trial", "--ema-url", "https://app.example.org/ema")
        made = service.command("client", "create", "eve", "--study", "trial", "--role", "researcher")
        service.tokens["eve"] = service.login("eve", made["password"])
        silent = [{"field": part, "message": "does not answer"} for part in ("worker", "beat")]
        assert "errors" not in health_of(service.call("GET", "/healthcheck", caller=None))
        assert health_of(service.call("GET", "/healthcheck", caller="eve"))["errors"] == silent
        service.command("client", "disable", "eve")
        assert "errors" not in health_of(service.call("GET", "/healthcheck", caller="eve"))
    with configured(embedded, fresh_database) as service:
        assert health_of(service.call("GET", "/healthcheck", caller=None))["errors"] == silent


def health_of(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 503
    body: dict[str, Any] = answer.get_json()
    assert body["error_code"] == 912
    return body


def test_health_names_the_database_and_its_schema(
    embedded: Embedded, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 0)
    with configured(embedded, fresh_database) as service:
        transact(lambda session: session.execute(text("UPDATE alembic_version SET version_num = 'old'")))
        told = health_of(service.call("GET", "/healthcheck", caller=None))
        assert [error["field"] for error in told["errors"]] == ["schema", "worker", "beat"]
    with configured(embedded, "postgresql://nobody@127.0.0.1:1/none") as service:
        told = health_of(service.call("GET", "/healthcheck", caller=None))
        assert [error["field"] for error in told["errors"]] == ["database", "schema", "worker", "beat"]
        assert service.call("GET", "/running", caller=None).status_code == 200


def test_all_is_well_in_a_running_stack(stack: Stack) -> None:
    for _ in range(100):  # beat has no answer of its own that its start could wait for
        answer = requests.get(f"{stack.api_url}/healthcheck", timeout=60)
        if answer.status_code == 200:
            break
        time.sleep(0.2)
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
