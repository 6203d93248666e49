"""The back end's POST /ema_study over real HTTP."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
import requests

from rehearsal.backend import MORE_FAULTS, Backend, EmaServer, Faults
from rehearsal.contract import Decision, Enrolment, Survey

DAY = date(2026, 3, 2)
AT = datetime(2026, 3, 2, 8, 0, 0, 123456, UTC)
PERSON = Enrolment("p-1", DAY, DAY, DAY, DAY, (800,) * 7, (2000,) * 7, "Europe/Berlin")
FINISHED = Survey(True, app_use_flag=False, activity_question_response=True, cannabis_use=(1.0, 2.0))
NOT_FINISHED = Survey(finished_ema=False, app_use_flag=True)
TOKEN = {"Authorization": "Bearer secret"}
BROKEN_OFF = {"ConnectionError", "ConnectionResetError"}  # which of the two, only the kernel knows
FIELDS = {
    "user_id",
    "finished_ema",
    "activity_question_response",
    "app_use_flag",
    "cannabis_use",
    "action_taken",
    "seed",
    "act_prob",
    "policy_id",
    "decision_index",
    "act_gen_timestamp",
    "rid",
    "timestamp_finished_ema",
    "message_notification_sent_time",
    "message_notification_click_time",
    "morning_notification_time_start",
    "evening_notification_time_start",
}


def decision(index: int, action: int = 1) -> Decision:
    at = AT + timedelta(hours=12 * (index - 1))
    return Decision(100 + index, action, 5, 0.5, 0, index, at, (0.0, 0.0, 1.0), "F0")


@pytest.fixture
def backend() -> Backend:
    backend = Backend("secret")
    backend.enrol("p-1")
    backend.store(PERSON, FINISHED, decision(1))
    backend.store(PERSON, NOT_FINISHED, decision(2, action=0))
    backend.store(PERSON, FINISHED, decision(3))
    return backend


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with EmaServer(backend, 0) as server:
        yield f"http://127.0.0.1:{server.server_port}/ema_study"


def query(start: datetime, end: datetime, user_id: str = "p-1") -> dict[str, str]:
    return {"user_id": user_id, "start_time": start.isoformat(), "end_time": end.isoformat()}


def indices(url: str, start: datetime, end: datetime) -> list[int]:
    answer = requests.post(url, json=query(start, end), headers=TOKEN, timeout=5).json()
    assert answer["status"] == "success"
    return sorted(item["decision_index"] for item in answer["ema_data"].values())


def test_an_item_has_every_field_and_what_was_issued(url: str) -> None:
    answer = requests.post(url, json=query(AT, AT), headers=TOKEN, timeout=5).json()
    (item,) = answer["ema_data"].values()
    assert set(item) == FIELDS
    assert (item["rid"], item["action_taken"], item["seed"], item["act_prob"]) == (101, 1, 5, 0.5)
    assert datetime.fromisoformat(item["act_gen_timestamp"]) == AT
    assert item["timestamp_finished_ema"] == item["message_notification_sent_time"] == AT.isoformat()
    assert item["cannabis_use"] == [1.0, 2.0]
    assert item["morning_notification_time_start"] == [800] * 7


def test_what_did_not_happen_is_na(url: str) -> None:
    evening = AT + timedelta(hours=12)
    answer = requests.post(url, json=query(evening, evening), headers=TOKEN, timeout=5).json()
    (item,) = answer["ema_data"].values()
    absent = {name for name, value in item.items() if value == "NA"}
    assert absent == {
        "activity_question_response",
        "cannabis_use",
        "timestamp_finished_ema",
        "message_notification_sent_time",
        "message_notification_click_time",
    }


def test_the_span_is_inclusive_with_a_second_of_tolerance(url: str) -> None:
    second, half_a_day = timedelta(seconds=1), timedelta(hours=12)
    assert indices(url, AT, AT + half_a_day) == [1, 2]
    assert indices(url, AT + second, AT + half_a_day - second) == [1, 2]
    assert indices(url, AT + 1.01 * second, AT + half_a_day - 1.01 * second) == []
    assert indices(url, AT - half_a_day, AT + 5 * half_a_day) == [1, 2, 3]


def test_times_with_another_offset_or_none_are_the_same_instants(url: str) -> None:
    texts = [
        ("2026-03-02T13:29:59+05:30", "2026-03-02T13:30:01+05:30"),
        ("2026-03-02 07:59:59", "2026-03-02 08:00:01"),
    ]
    for start, end in texts:
        body = {"user_id": "p-1", "start_time": start, "end_time": end}
        answer = requests.post(url, json=body, headers=TOKEN, timeout=5).json()
        assert [item["decision_index"] for item in answer["ema_data"].values()] == [1]


def test_an_unknown_participant_is_a_fail_and_a_new_one_has_no_data(url: str, backend: Backend) -> None:
    backend.enrol("p-2")
    stranger = requests.post(url, json=query(AT, AT, "nobody"), headers=TOKEN, timeout=5)
    newcomer = requests.post(url, json=query(AT, AT, "p-2"), headers=TOKEN, timeout=5)
    assert stranger.json()["status"] == "fail"
    assert newcomer.json() == {"status": "success", "ema_data": {}}


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}])
def test_a_wrong_token_is_refused(url: str, header: dict[str, str]) -> None:
    answer = requests.post(url, json=query(AT, AT), headers=header, timeout=5)
    assert answer.status_code == 401
    assert "ema_data" not in answer.json()


def test_without_a_token_everybody_is_let_in() -> None:
    backend = Backend(None)
    backend.enrol("p-1")
    with EmaServer(backend, 0) as server:
        url = f"http://127.0.0.1:{server.server_port}/ema_study"
        assert requests.post(url, json=query(AT, AT), timeout=5).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b'{"user_id": 3}', b'{"user_id":"p-1","start_time":"x","end_time":"y"}', b"\xff"],
)
def test_a_bad_query_is_refused_in_one_sentence(url: str, body: bytes) -> None:
    answer = requests.post(url, data=body, headers=TOKEN, timeout=5)
    assert answer.status_code == 400
    assert answer.json()["status"] == "fail"


def test_other_routes_and_large_bodies_are_refused(url: str) -> None:
    assert requests.post(url + "/more", json={}, headers=TOKEN, timeout=5).status_code == 404
    assert requests.post(url, data=b" " * 100_000, headers=TOKEN, timeout=5).status_code == 413


class Recording(Backend):
    """A back end that keeps the kind of failure of each of its calls, in their order."""

    def __init__(self, faults: Faults) -> None:
        super().__init__("secret", faults)
        self.issued: list[str | None] = []

    def next_fault(self) -> str | None:
        self.issued.append(super().next_fault())
        return self.issued[-1]


def outcomes_of(backend: Recording, calls: int) -> dict[str | None, Counter[str | tuple[int, str]]]:
    """Make `calls` calls, one after the other, and count their outcomes by the kind of failure."""
    backend.enrol("p-1")
    outcomes: dict[str | None, Counter[str | tuple[int, str]]] = {}
    with EmaServer(backend, 0) as server:
        url = f"http://127.0.0.1:{server.server_port}/ema_study"
        for _ in range(calls):
            began = time.monotonic()
            outcome: str | tuple[int, str]
            try:
                answer = requests.post(url, json=query(AT, AT), headers=TOKEN, timeout=60)
                outcome = answer.status_code, answer.json()["status"]
            except requests.JSONDecodeError:
                outcome = "not JSON"
            except requests.ConnectionError as error:
                reset = "ConnectionResetError" in str(error)
                outcome = "ConnectionResetError" if reset else "ConnectionError"
            assert backend.issued[-1] != "late" or time.monotonic() - began >= backend.faults.late
            outcomes.setdefault(backend.issued[-1], Counter())[outcome] += 1
    assert backend.calls == calls == len(backend.issued)
    return outcomes


def test_a_settable_share_of_calls_fails_in_each_of_the_three_ways() -> None:
    backend = Recording(Faults(share=0.5, late=0.2, seed=3))
    outcomes = outcomes_of(backend, 60)
    good = outcomes[None].total()
    assert 15 < good < 45
    assert backend.failed_on_purpose == 60 - good
    assert set(outcomes.pop("closed")) <= BROKEN_OFF
    assert {fault: set(counts) for fault, counts in outcomes.items()} == {
        None: {(200, "success")},
        "late": {(200, "success")},
        "error": {(500, "fail")},
    }


def test_it_can_also_break_off_send_no_json_and_say_fail() -> None:
    outcomes = outcomes_of(Recording(Faults(share=1.0, late=0.0, seed=3, kinds=MORE_FAULTS)), 80)
    closed, reset = outcomes.pop("closed"), outcomes.pop("reset")
    assert set(closed) | set(reset) <= BROKEN_OFF
    assert closed["ConnectionError"] > 0
    assert reset["ConnectionResetError"] > 0
    assert {fault: set(counts) for fault, counts in outcomes.items()} == {
        "late": {(200, "success")},
        "error": {(500, "fail")},
        "fail": {(200, "fail")},
        "not JSON": {"not JSON"},
    }


def test_a_caller_that_hangs_up_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    backend = Backend("secret", Faults(share=1.0, late=0.3, seed=1))
    with EmaServer(backend, 0) as server:
        url = f"http://127.0.0.1:{server.server_port}/ema_study"
        for _ in range(8):
            with contextlib.suppress(requests.RequestException):
                requests.post(url, json=query(AT, AT), headers=TOKEN, timeout=0.1)
        time.sleep(0.5)
    assert "Traceback" not in capfd.readouterr().err


def test_no_call_fails_unless_told_to() -> None:
    assert outcomes_of(Recording(Faults()), 50) == {None: {(200, "success"): 50}}
