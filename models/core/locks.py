"""Locks in PostgreSQL that die with their holder: a process that is killed lets go at once, without a word.

They belong to a connection, not to a transaction, so the database must be reached directly: behind a pooler
that lends connections by the transaction they do not hold.
"""

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from sqlalchemy.engine import make_url

from models.core.connections import KEEPALIVE, KEEPALIVE_OF_SERVER
from models.core.deadline import Watch
from settings import settings

BEAT = 727_401  # any number, the same everywhere
JOBS = 5 << 40  # with a job's id added: below 2^63, and no other lock comes near
PARTS = 6 << 40  # with the id of a part of a fit
LONGEST_ANSWER_SECONDS = 10.0  # nothing that is asked here waits for anybody
_own = threading.local()  # the holder of each thread


@functools.cache
def _watch() -> Watch:
    return Watch(LONGEST_ANSWER_SECONDS)


os.register_at_fork(after_in_child=_watch.cache_clear)  # its thread stays with the parent


class Holder:
    """A connection of its own that holds locks. Methods raise psycopg2.Error while the database is away, or
    does not answer."""

    def __init__(self) -> None:
        url = make_url(settings().database_url).set(drivername="postgresql")
        self._connection = psycopg2.connect(
            url.render_as_string(hide_password=False),
            connect_timeout=3,
            application_name="kairos lock",
            options=KEEPALIVE_OF_SERVER,
            **KEEPALIVE,
        )
        self._connection.autocommit = True

    def take(self, key: int) -> bool:
        """Take the lock unless somebody has it; return whether we have it now."""
        return self._ask(f"SELECT pg_try_advisory_lock({key})")

    def release(self, key: int) -> None:
        """Let go of the lock."""
        self._ask(f"SELECT pg_advisory_unlock({key})")

    def check(self) -> None:
        """Raise psycopg2.Error where the connection is dead."""
        self._ask("SELECT true")

    def close(self) -> None:
        """Let go of everything."""
        self._connection.close()

    def _ask(self, statement: str) -> bool:
        _watch().begin(id(self), self._connection)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                (answer,) = cursor.fetchone() or (False,)
        finally:
            _watch().end(id(self))
        return bool(answer)


@contextmanager
def of_job(job_id: int) -> Iterator[bool]:
    """Hold a job's lock within the block; False where another process holds it.

    Raises psycopg2.Error where the database is away.
    """
    with _held(JOBS + job_id) as is_ours:
        yield is_ours


@contextmanager
def of_part(part_id: int) -> Iterator[bool]:
    """Hold the lock of a part of a fit within the block; False where another process holds it.

    Raises psycopg2.Error where the database is away.
    """
    with _held(PARTS + part_id) as is_ours:
        yield is_ours


def close() -> None:
    """Let go of all that this thread holds."""
    holder = _own.__dict__.pop("holder", None)
    if holder is not None:
        holder.close()


@contextmanager
def _held(key: int) -> Iterator[bool]:
    try:
        is_ours = _holder().take(key)
    except psycopg2.Error:  # the connection broke since it was last used
        close()
        is_ours = _holder().take(key)
    try:
        yield is_ours
    finally:
        if is_ours:
            try:
                _holder().release(key)
            except psycopg2.Error:  # the lock died with the connection
                close()


def _holder() -> Holder:
    holder: Holder | None = getattr(_own, "holder", None)
    if holder is None:
        holder = _own.holder = Holder()
    return holder
