"""Beat and workers as real processes: who is left records the silence of the other and tells it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from local.embedded import Embedded
from local.ports import free_port
from local.stack import Stack, environment
from tests.support.receivers import Hook, hook
from tests.support.study import cursor

SECRET = "a secret of the webhook"
BROKER = 5
SILENCE = 12  # far more than a slow machine needs between two signs of life
DATABASE = "sentry"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture(scope="module")
def stack(embedded: Embedded, migrated: str, passable: Path, receiver: Hook) -> Iterator[Stack]:
    """A stack that looks every second."""
    embedded.postgres.create_database(DATABASE, template=migrated)
    urls = embedded.database_url(DATABASE), embedded.broker_url(BROKER)
    with Embedded(passable / "sentry", database=False, broker=False) as home:
        settings = environment(home.state, *urls, free_port()) | {
            "KAIROS_WATCH_SECONDS": "1",
            "KAIROS_SILENCE_SECONDS": str(SILENCE),
            "KAIROS_SWEEP_SECONDS": "1",
            "KAIROS_API_PROCESSES": "1",
            "KAIROS_WEBHOOK_URL": receiver.url,
            "KAIROS_WEBHOOK_SECRET": SECRET,
        }
        stack = Stack(home.state, home.supervisor, settings)
        stack.start()
        yield stack


@pytest.fixture
def watched(stack: Stack, receiver: Hook) -> Stack:
    """The same, with both of them alive and nothing told of them yet."""
    assert eventually(lambda: alive(stack) == {"beat", "workers"})
    with cursor(stack.env["DATABASE_URL"]) as found:
        found.execute("DELETE FROM notifications")
        found.execute("DELETE FROM incidents")
    receiver.got.clear()
    return stack


def eventually(happened: Callable[[], bool], seconds: float = 90) -> bool:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.1)
    return happened()


def alive(stack: Stack) -> set[str]:
    """Who has given a sign of life lately."""
    with cursor(stack.env["DATABASE_URL"]) as found:
        found.execute("SELECT name FROM heartbeats WHERE at > now() - interval '5 seconds'")
        return {row["name"] for row in found.fetchall()}


def told(receiver: Hook) -> list[tuple[str, str]]:
    """The incidents that were told, as (kind, change)."""
    messages = [json.loads(body) for _, body in receiver.got]
    return [(one["kind"], one["change"]) for one in messages]


def recorded(stack: Stack) -> list[str]:
    """The incidents that there are."""
    with cursor(stack.env["DATABASE_URL"]) as found:
        found.execute("SELECT kind FROM incidents ORDER BY id")
        return [row["kind"] for row in found.fetchall()]


def look_again(stack: Stack) -> None:
    """Both are back, and each has had time to look at the other."""
    assert eventually(lambda: alive(stack) == {"beat", "workers"})
    time.sleep(5)


@contextmanager
def stopped(stack: Stack, part: str) -> Iterator[None]:
    """A part that lives, so that its supervisor sees nothing wrong, and does nothing."""
    group = os.getpgid(stack.pids[part])
    assert group != os.getpgid(0)
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.mark.parametrize(("part", "kind"), [("beat", "beat_silent"), ("worker", "workers_silent")])
def test_the_silence_of_one_is_told_by_the_other_once_and_no_other_one_is(
    watched: Stack, receiver: Hook, part: str, kind: str
) -> None:
    time.sleep(3)
    assert told(receiver) == []
    with stopped(watched, part):
        assert eventually(lambda: told(receiver) != [])
        time.sleep(3)
        assert told(receiver) == [(kind, "opened")]
    look_again(watched)
    assert told(receiver) == [(kind, "opened")]
    assert recorded(watched) == [kind]


@pytest.mark.parametrize("late", ["beat", "worker"])
def test_a_database_that_was_away_accuses_nobody(
    watched: Stack, receiver: Hook, embedded: Embedded, late: str
) -> None:
    with ExitStack() as held:
        with without_a_database(embedded):
            time.sleep(SILENCE + 3)
            held.enter_context(stopped(watched, late))
        time.sleep(4)  # the other one looks, and its last sign of life is older than the outage
    look_again(watched)
    assert recorded(watched) == []
    assert told(receiver) == []


@contextmanager
def without_a_database(embedded: Embedded) -> Iterator[None]:
    """Nobody gets a connection to the database of the stack, and who has one loses it."""
    with cursor(embedded.database_url("postgres")) as server:
        server.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (DATABASE,)
        )
    try:
        yield
    finally:
        with cursor(embedded.database_url("postgres")) as server:
            server.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true")
