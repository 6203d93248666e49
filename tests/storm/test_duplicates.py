"""Every call takes effect exactly once, over several processes of the API and thousands of duplicates."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import requests

from local.stack import Stack
from tests.local.families import family_of
from tests.storm import duplicates
from tests.support import remote
from tests.support.remote import Remote
from tests.support.study import NOT_FINISHED, REGISTRATION

THREADS = 64
CALLS = 5_000


@pytest.fixture(scope="module")
def client(stack: Stack) -> Remote:
    """A study in the running stack."""
    assert len(family_of(stack.pids["api"])) >= 3  # gunicorn's arbiter and at least two workers
    return remote.begin(stack.env, stack.api_url, role="admin")


def at_once(client: Remote, path: str, body: dict[str, object]) -> list[requests.Response]:
    """Send 64 equal calls together and return their answers."""
    barrier = Barrier(THREADS)

    def call(_: int) -> requests.Response:
        barrier.wait()
        return client.post(path, body)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, range(THREADS)))


def test_sixty_four_equal_calls_are_one_enrolment_one_decision_and_one_window(client: Remote) -> None:
    for path, more, status in (
        ("/register", REGISTRATION, 201),
        ("/actions", NOT_FINISHED, 200),
        ("/end_decision_window", {}, 202),
    ):
        answers = at_once(client, path, {"user_id": "ann", **more})
        assert {answer.status_code for answer in answers} == {status}
        assert len({answer.text for answer in answers}) == 1
    study = client.get("/study")
    assert (study["participants"], study["decisions"], sum(study["windows"].values())) == (1, 1, 1)
    assert len(client.get("/decisions")["decisions"]) == 1


def test_no_name_and_no_token_reaches_the_log(client: Remote, passable: Path) -> None:
    name = "somebody-whose-name-is-private"
    client.enrol(name)
    client.post_actions(name, decision_index=61)
    participants = client.get(f"/participants?user_id={name}")["participants"]
    path = f"/participants/{participants[0]['participant_id']}"
    assert client.get(path)["participant"]["phase"] == "REGISTERED"
    (log,) = (passable / "stack").rglob("api.log")
    text = log.read_text()
    assert '"route":"/participants/<int:participant_id>"' in text
    assert name not in text
    assert client.token not in text


def test_thousands_of_duplicates_leave_one_decision_for_each_point(stack: Stack) -> None:
    storm, wrong = duplicates.play(
        stack.env, stack.api_url, CALLS, THREADS, seed=20261121, step=lambda _: None
    )
    assert wrong == []
    assert storm.findings.calls >= CALLS
    assert storm.findings.abandoned > 100
