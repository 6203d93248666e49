"""A beat that may be started twice: only the one that holds a lock in PostgreSQL ticks."""

import time
from typing import Any

import psycopg2
from celery.beat import PersistentScheduler
from sqlalchemy.engine import make_url

from models import heartbeats
from settings import settings
from workers import sentry

LOCK = 727_401  # any number, the same in every beat
WAIT_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0


class LockedScheduler(PersistentScheduler):
    """The default scheduler behind a session-level advisory lock, which dies with its holder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._connection: Any = None
        self._shown_at = -HEARTBEAT_SECONDS
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Seconds until the next tick; nothing is sent unless the lock is held."""
        if not (self._holds_lock() and self._shows_life()):
            return WAIT_SECONDS
        return float(super().tick(*args, **kwargs))

    def _holds_lock(self) -> bool:
        """The connection that took the lock still lives, or a new one takes it."""
        try:
            if self._connection is not None:
                self._ask("SELECT true")
                return True
            return self._take()
        except psycopg2.Error:
            self._drop()
            return False

    def _shows_life(self) -> bool:
        """Note that this beat ticks, often enough for who watches it."""
        pause = min(HEARTBEAT_SECONDS, settings().silence_seconds / 6)
        if time.monotonic() - self._shown_at < pause:
            return True
        try:
            self._ask(heartbeats.STATEMENT)
        except psycopg2.Error:
            self._drop()
            return False
        self._shown_at = time.monotonic()
        sentry.guard_workers()
        return True

    def _take(self) -> bool:
        url = make_url(settings().database_url).set(drivername="postgresql")
        self._connection = psycopg2.connect(url.render_as_string(hide_password=False), connect_timeout=3)
        self._connection.autocommit = True
        if not self._ask(f"SELECT pg_try_advisory_lock({LOCK})"):
            self._drop()
            return False
        return True

    def _ask(self, statement: str) -> bool:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return bool(cursor.fetchone()[0])

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
