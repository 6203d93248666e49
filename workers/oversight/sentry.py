"""Beat and workers watch each other, each in a thread of the other one's process.

The watchdog is a task that beat sends and a worker runs: it cannot tell that one of the two is gone. Who is
left records it and delivers what is to be told itself. Where both are gone, /healthcheck and /metrics say so.
"""

import functools
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

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
    worker_ready.connect(_worker_is_ready)


def _worker_is_ready(**_: Any) -> None:
    _start(BEAT)


def guard_workers() -> None:
    """Have this process, which is beat, watch the workers."""
    _start(WORKERS)


@functools.cache
def _start(other: str) -> None:
    threading.Thread(target=_keep_looking, args=(other,), daemon=True).start()


def _keep_looking(other: str) -> None:
    before = since = datetime.now(UTC)
    while True:
        time.sleep(settings().watch_seconds)
        before, since = _look_again(other, before, since)


def _look_again(other: str, before: datetime, since: datetime) -> tuple[datetime, datetime]:
    """One more look after that which ended at `before`: its own end, and since when `other` is watched."""
    now = datetime.now(UTC)
    if now - before > _longest_gap():  # this process stood still: perhaps nobody told the other one to move
        since = now
    try:
        look(other, since, now)
    except Exception as error:  # nothing may end this thread
        log.warning("sentry cannot look", of=other, error=type(error).__name__)
        since = datetime.now(UTC)  # nor could the other one show that it lives
    return datetime.now(UTC), since  # what is delivered may take its time, and is no standstill


def _longest_gap() -> timedelta:
    """Between two looks: with a longer one, a silence may be of its making."""
    return timedelta(seconds=max(settings().silence_seconds / 2, 1.5 * settings().watch_seconds))


def look(other: str, since: datetime, now: datetime) -> bool:
    """Record that `other` has given no sign of life for too long, and tell it; whether that is so.

    since: when this watch began, for what was silent before may have had a cause that is over.
    """
    last = transact(lambda session: heartbeats.last(session, other))
    silence = now - max(last or since, since)
    if silence < timedelta(seconds=settings().silence_seconds):
        return False
    kind = KINDS[other]
    condition = Condition(kind, RED, {"seconds": round(silence.total_seconds())})
    watchdog.record(None, (kind,), [condition], now)
    notifications.deliver_due(now)
    return True
