"""The client at a server that misbehaves as a service does while it is down or restarted."""

import base64
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta, timezone
from threading import Event

import pytest

from rehearsal.client import ApiError, Client, Unreachable
from rehearsal.contract import Survey
from tests.rehearsal.scripted import Answer, Request, Script

NOON = datetime(2026, 3, 2, 12, tzinfo=timezone(timedelta(hours=1)))
SURVEY = Survey(finished_ema=False, app_use_flag=True)
DECISION = {
    "status": "success",
    "rid": 7,
    "action": 1,
    "seed": 12,
    "act_prob": 0.5,
    "policy_id": 0,
    "decision_index": 3,
    "act_gen_timestamp": "2026-03-02T11:00:00.25+00:00",
    "state": [0.0, 1.0, 0.0],
    "fallback_level": "F0",
    "a_field_of_tomorrow": None,
}
DECIDED = Answer(200, DECISION)


def token(name: str, seconds: float = 3600) -> Answer:
    claims = base64.urlsafe_b64encode(json.dumps({"iat": 0, "exp": seconds}).encode()).decode().rstrip("=")
    return Answer(200, {"status": "success", "auth_token": f"{name}.{claims}.x"})


def refused(status: int, code: int | None = None) -> Answer:
    return Answer(status, {"status": "fail", "message": "no", "error_code": code})


def client(url: str, patience: float = 5.0) -> Client:
    return Client(url, "trial", "app", "password", patience)


def test_a_decision_is_asked_for_with_its_index_and_read_with_its_types() -> None:
    script = Script(token("a"), DECIDED)
    with script.served() as url:
        decision = client(url).actions("p", 3, NOON, SURVEY)
    assert script.requests[1].body == {
        "user_id": "p",
        "decision_index": 3,
        "decision_time": "2026-03-02T12:00:00+01:00",
        "finished_ema": False,
        "app_use_flag": True,
        "activity_question_response": "NA",
        "cannabis_use": "NA",
    }
    assert decision.act_gen_timestamp == datetime.fromisoformat("2026-03-02T11:00:00.25+00:00")
    assert (decision.rid, decision.state) == (7, (0.0, 1.0, 0.0))


@pytest.mark.parametrize("trouble", [Answer(None), refused(503), refused(502), refused(504), refused(429)])
def test_a_call_is_sent_again_unchanged_while_the_service_is_away(trouble: Answer) -> None:
    script = Script(token("a"), trouble, trouble, DECIDED)
    with script.served() as url:
        client(url).actions("p", 3, NOON, SURVEY)
    first, *repeats = script.requests[1:]
    assert len(repeats) == 2
    assert all(repeat == first for repeat in repeats)


def test_the_wait_that_the_service_asks_for_is_kept() -> None:
    script = Script(token("a"), Answer(503, {}, {"Retry-After": "1"}), DECIDED)
    with script.served() as url:
        started = time.monotonic()
        client(url).actions("p", 3, NOON, SURVEY)
    assert time.monotonic() - started >= 1


def test_patience_ends() -> None:
    script = Script(token("a"), refused(503))
    with script.served() as url, pytest.raises(Unreachable, match="HTTP 503"):
        client(url, patience=0.3).actions("p", 3, NOON, SURVEY)


def test_nobody_listens() -> None:
    with Script(DECIDED).served() as url:
        pass
    with pytest.raises(Unreachable, match="ConnectionError"):
        client(url).running(0.2)


@pytest.mark.parametrize(("status", "code"), [(409, 212), (422, 201), (404, 203), (500, 909)])
def test_a_refusal_is_not_repeated(status: int, code: int) -> None:
    script = Script(token("a"), refused(status, code), DECIDED)
    with script.served() as url, pytest.raises(ApiError) as caught:
        client(url).actions("p", 3, NOON, SURVEY)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len(script.requests) == 2


def test_a_refused_token_is_renewed_once() -> None:
    script = Script(token("old"), refused(401, 2), token("new"), DECIDED)
    with script.served() as url:
        client(url).actions("p", 3, NOON, SURVEY)
    assert [request.path for request in script.requests] == [
        "/auth/login",
        "/actions",
        "/auth/login",
        "/actions",
    ]
    assert script.requests[1].token.startswith("old.")
    assert script.requests[3].token.startswith("new.")


class SlowLogin(Script):
    """A service that answers a login only after `may_answer` is set."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(*answers)
        self.may_answer = Event()

    def next(self, request: Request) -> Answer:
        answer = super().next(request)
        if request.path == "/auth/login":
            self.may_answer.wait()
        return answer


def test_a_thread_waits_for_the_login_of_another_no_longer_than_its_patience() -> None:
    script = SlowLogin(token("a"), DECIDED)
    with script.served() as url, ThreadPoolExecutor(6) as pool:
        calling = client(url, patience=0.2)
        calls = [pool.submit(calling.actions, "p", 3, NOON, SURVEY) for _ in range(6)]
        first = list(itertools.islice(as_completed(calls), 5))
        script.may_answer.set()
        assert all(isinstance(call.exception(), Unreachable) for call in first)
        (last,) = set(calls) - set(first)
        assert last.result().rid == 7
    assert [request.path for request in script.requests] == ["/auth/login", "/actions"]


def test_threads_without_a_token_log_in_once() -> None:
    script = Script(token("a"), DECIDED)
    with script.served() as url, ThreadPoolExecutor(6) as pool:
        calling = client(url)
        for call in [pool.submit(calling.actions, "p", 3, NOON, SURVEY) for _ in range(6)]:
            assert call.result().rid == 7
    assert [request.path for request in script.requests].count("/auth/login") == 1


def test_a_registration_whose_answer_was_lost_logs_in() -> None:
    script = Script(Answer(None), refused(409, 6), token("a"), DECIDED)
    with script.served() as url:
        calling = client(url)
        calling.register_client()
        calling.actions("p", 3, NOON, SURVEY)
    assert [request.path for request in script.requests] == [
        *["/auth/register"] * 2,
        "/auth/login",
        "/actions",
    ]


def test_the_name_of_somebody_else_is_taken_with_and_without_a_repeat() -> None:
    for before in ((), (Answer(None),)):
        script = Script(*before, refused(409, 6), refused(401, 7))
        with script.served() as url, pytest.raises(ApiError) as caught:
            client(url).register_client()
        assert (caught.value.status, caught.value.code) == (409, 6)
        assert len(script.requests) == 1 + 2 * len(before)


def test_a_second_refusal_of_the_token_is_an_error() -> None:
    script = Script(token("old"), refused(401, 2), token("new"), refused(401, 2), DECIDED)
    with script.served() as url, pytest.raises(ApiError, match="401"):
        client(url).actions("p", 3, NOON, SURVEY)
    assert len(script.requests) == 4


def test_a_token_is_renewed_before_it_expires() -> None:
    script = Script(token("short", seconds=0.5), DECIDED, token("next"), DECIDED)
    with script.served() as url:
        calling = client(url)
        calling.actions("p", 3, NOON, SURVEY)
        time.sleep(0.5)
        calling.actions("p", 3, NOON, SURVEY)
    assert [request.path for request in script.requests] == [
        "/auth/login",
        "/actions",
        "/auth/login",
        "/actions",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "12"},
        {"seed": 12.5},
        {"action": True},
        {"rid": None},
        {"act_prob": "0.5"},
        {"act_gen_timestamp": "noon"},
        {"status": "fail"},
    ],
)
def test_an_answer_of_other_types_than_the_contract_says_is_an_error(change: dict[str, object]) -> None:
    script = Script(token("a"), Answer(200, DECISION | change))
    with (
        script.served() as url,
        pytest.raises(ApiError, match=f"not as the contract says .*{next(iter(change))}"),
    ):
        client(url).actions("p", 3, NOON, SURVEY)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_what_is_no_answer_of_the_contract_is_an_error(body: bytes) -> None:
    for status in (200, 500):
        script = Script(token("a"), Answer(status, body))
        with script.served() as url, pytest.raises(ApiError):
            client(url).actions("p", 3, NOON, SURVEY)


def test_the_password_is_in_no_error() -> None:
    with Script(refused(401, 7)).served() as url, pytest.raises(ApiError) as caught:
        client(url).login()
    assert "password" not in str(caught.value)
