"""A beat that may be started twice: only the one that holds a lock in PostgreSQL ticks."""

import time
from datetime import UTC, datetime
from typing import Any

import psycopg2
from celery.beat import PersistentScheduler
from sqlalchemy.exc import DBAPIError

from models.core import connections, heartbeats, locks
from models.core.locks import Holder
from models.core.session import transact
from settings import settings
from workers.oversight import sentry

WAIT_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
LONGEST_TRANSACTION_SECONDS = 20.0  # with a database that hangs; after that another beat may take over


class LockedScheduler(PersistentScheduler):
    """The default scheduler behind a session-level advisory lock, which dies with its holder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._holder: Holder | None = None
        self._shown_at = -HEARTBEAT_SECONDS
        connections.bound(LONGEST_TRANSACTION_SECONDS)
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due if this beat holds the lock, and return the seconds until the next tick."""
        if not (self._holds_lock() and self._shows_life()):
            return WAIT_SECONDS
        return float(super().tick(*args, **kwargs))

    def _holds_lock(self) -> bool:
        """Return whether this beat holds the lock; take it if it is free."""
        try:
            # the lock lives as long as the connection that took it
            if self._holder is not None:
                self._holder.check()
                return True
            self._holder = Holder()
            if self._holder.take(locks.BEAT):
                return True
        except psycopg2.Error:
            pass
        self._drop()
        return False

    def _shows_life(self) -> bool:
        """Write a heartbeat if the last one is old enough; return False where the database is away."""
        pause = min(HEARTBEAT_SECONDS, settings().silence_seconds / 6)
        if time.monotonic() - self._shown_at < pause:
            return True
        try:
            transact(heartbeats.touch, heartbeats.BEAT, datetime.now(UTC))
        except DBAPIError:
            self._drop()
            return False
        self._shown_at = time.monotonic()
        sentry.guard_workers()
        return True

    def _drop(self) -> None:
        if self._holder is not None:
            self._holder.close()
        self._holder = None
