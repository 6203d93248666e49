"""Beat and workers as real processes: who is left records the silence of the other and tells it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.embedded import Embedded
from local.ports import free_port
from local.stack import Stack, environment
from tests.api.trial import cursor
from tests.workers.receivers import Hook, hook

SECRET = "a secret of the webhook"
BROKER = 5


@pytest.fixture(scope="module")
def receiver() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture(scope="module")
def watched(embedded: Embedded, migrated: str, passable: Path, receiver: Hook) -> Iterator[Stack]:
    """A stack that looks every second and is alarmed after four."""
    embedded.postgres.create_database("sentry", template=migrated)
    urls = embedded.database_url("sentry"), embedded.broker_url(BROKER)
    with Embedded(passable / "sentry", database=False, broker=False) as home:
        settings = environment(home.state, *urls, free_port()) | {
            "KAIROS_WATCH_SECONDS": "1",
            "KAIROS_SILENCE_SECONDS": "4",
            "KAIROS_SWEEP_SECONDS": "1",
            "KAIROS_API_PROCESSES": "1",
            "KAIROS_WEBHOOK_URL": receiver.url,
            "KAIROS_WEBHOOK_SECRET": SECRET,
        }
        stack = Stack(home.state, home.supervisor, settings)
        stack.start()
        yield stack


def eventually(happened: Callable[[], bool], seconds: float = 40) -> bool:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.1)
    return happened()


def heartbeats(stack: Stack) -> set[str]:
    with cursor(stack.env["DATABASE_URL"]) as found:
        found.execute("SELECT name FROM heartbeats WHERE at > now() - interval '3 seconds'")
        return {row["name"] for row in found.fetchall()}


def told(receiver: Hook) -> list[str]:
    return [json.loads(body)["kind"] for _, body in receiver.got]


@pytest.mark.parametrize(("part", "kind"), [("beat", "beat_silent"), ("worker", "workers_silent")])
def test_the_silence_of_one_is_told_by_the_other(
    watched: Stack, receiver: Hook, part: str, kind: str
) -> None:
    assert eventually(lambda: heartbeats(watched) == {"beat", "workers"})
    group = os.getpgid(watched.pids[part])
    assert group != os.getpgid(0)
    os.killpg(group, signal.SIGSTOP)  # it lives, and its supervisor sees nothing wrong
    try:
        assert eventually(lambda: kind in told(receiver))
        time.sleep(2)
    finally:
        os.killpg(group, signal.SIGCONT)
    assert told(receiver).count(kind) == 1
    assert eventually(lambda: heartbeats(watched) == {"beat", "workers"})
