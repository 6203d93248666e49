"""Beat and workers watch each other, each in a thread of the other one's process.

The watchdog is a task that beat sends and a worker runs, so it cannot notice that one of the two is gone. The
one that is left records the incident, and delivers the notifications itself. Where both are gone,
/healthcheck and /metrics show it.
"""

import functools
import threading
import time
from datetime import UTC, datetime, timedelta

from celery.signals import worker_ready

from models.core import heartbeats
from models.core.heartbeats import BEAT, WORKERS
from models.core.session import transact
from models.oversight.incidents import RED, Condition, Kind
from settings import settings
from workers.core.celery_app import log
from workers.oversight import notifications, watchdog

KINDS = {BEAT: Kind.BEAT_SILENT, WORKERS: Kind.WORKERS_SILENT}


def guard_beat() -> None:
    """Have this process watch beat, if it becomes a worker."""
    worker_ready.connect(lambda **_: _start(BEAT), weak=False)  # no other reference to the lambda is kept


def guard_workers() -> None:
    """Have this process, which is beat, watch the workers."""
    _start(WORKERS)


@functools.cache
def _start(other: str) -> None:
    """Start the thread that watches `other`, once in this process."""

    def keep_looking() -> None:
        before = since = datetime.now(UTC)
        while True:
            time.sleep(settings().watch_seconds)
            before, since = look_again(other, before, since)

    threading.Thread(target=keep_looking, daemon=True).start()


def look_again(other: str, before: datetime, since: datetime) -> tuple[datetime, datetime]:
    """Take one more look at `other`, after the look that ended at `before`.

    Return the end of this look, and the time since when `other` has been watched without interruption.
    """
    now = datetime.now(UTC)
    if now - before > longest_gap():  # this process stood still, perhaps as all of the machine did
        since = now
    try:
        look(other, since, now)
    except Exception as error:  # nothing may end this thread
        log.warning("sentry cannot look", of=other, error=type(error).__name__)
        # where this process cannot read heartbeats, the other one cannot write them
        since = datetime.now(UTC)
    return datetime.now(UTC), since  # the end: a delivery may take its time, and is no standstill


def longest_gap() -> timedelta:
    """Return the longest time between two looks after which a silence still is the other process's own."""
    return timedelta(seconds=max(settings().silence_seconds / 2, 1.5 * settings().watch_seconds))


def look(other: str, since: datetime, now: datetime) -> bool:
    """Record an incident and deliver its notifications if `other` was silent for too long; return if it was.

    since: the time at which this watch began. Silence before may have had a cause that is over.
    """
    last = transact(heartbeats.last, other)
    silence = now - max(last or since, since)
    if silence < timedelta(seconds=settings().silence_seconds):
        return False
    kind = KINDS[other]
    condition = Condition(kind, RED, {"seconds": round(silence.total_seconds())})
    watchdog.record(None, (kind,), [condition], now)
    notifications.deliver_due(now)
    return True
