"""Two beats, as processes of their own, on one database: one sends, the other only when it is gone."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
import redis

from local.embedded import Embedded
from local.ports import free_port
from local.stack import beat, environment, python
from local.state import CLONE
from models.core import locks
from tests.local.families import eventually
from tests.support.study import cursor

BROKER = 6  # the broker's database of these tests: nobody takes what is sent there
SENT = "Scheduler: Sending due task"
HOLDERS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True)
class Beat:
    """A beat in a process of its own, and what it has written."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def sends(self) -> int:
        """How often it has sent a task."""
        return self.log.read_text().count(SENT)

    def sends_more(self) -> bool:
        """Whether it goes on sending."""
        before = self.sends
        return eventually(lambda: self.sends > before + 2, seconds=60)


@dataclass(frozen=True)
class Clocks:
    """The beats of a database."""

    database_url: str
    start: Callable[[], Beat]

    def holders(self) -> list[int]:
        """The sessions that have the lock."""
        with cursor(self.database_url) as found:
            found.execute(HOLDERS, [locks.BEAT])
            return [row["pid"] for row in found.fetchall()]


@pytest.fixture
def clocks(embedded: Embedded, fresh_database: str, tmp_path: Path) -> Iterator[Clocks]:
    """Beats that look for lost work five times a second."""
    with redis.Redis(unix_socket_path=str(embedded.valkey.path), db=BROKER) as broker:
        broker.flushdb()
    env = environment(embedded.state, fresh_database, embedded.broker_url(BROKER), free_port())
    with ExitStack() as stack:

        def start() -> Beat:
            log = tmp_path / f"beat-{time.monotonic_ns()}.log"
            command = python(beat(str(log.with_suffix(".schedule"))))
            told = env | {"KAIROS_SWEEP_SECONDS": "0.2"}
            out = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(command, env=told, cwd=CLONE, stdout=out, stderr=out)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return Beat(process, log)

        yield Clocks(fresh_database, start)


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_one_of_two_beats_sends_and_the_other_takes_over_when_it_is_killed(clocks: Clocks) -> None:
    first = clocks.start()
    assert first.sends_more()
    second = clocks.start()
    assert eventually(lambda: "beat: Starting" in second.log.read_text(), seconds=60)
    for _ in range(3):
        assert first.sends_more()
    assert (second.sends, len(clocks.holders())) == (0, 1)
    first.process.kill()
    first.process.wait()
    sent = first.sends
    assert second.sends_more()
    assert (first.sends, len(clocks.holders())) == (sent, 1)


def test_a_beat_that_loses_its_lock_sends_nothing_until_it_has_it_again(clocks: Clocks) -> None:
    only = clocks.start()
    assert only.sends_more()
    url = clocks.database_url.replace("postgresql+psycopg2", "postgresql")
    other = psycopg2.connect(url)
    other.autocommit = True
    try:
        with stopped(only.process), other.cursor() as asking:
            (holder,) = clocks.holders()
            asking.execute("SELECT pg_terminate_backend(%s, 60000)", [holder])
            asking.execute("SELECT pg_advisory_lock(%s)", [locks.BEAT])
        time.sleep(2)  # it may have looked at its lock just before it was stopped
        sent = only.sends
        time.sleep(5)  # in which it would have sent twenty
        assert only.sends == sent
    finally:
        other.close()
    assert only.sends_more()
