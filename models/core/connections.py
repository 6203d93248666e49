"""Connections to the database: how they are made and lent, and the statement that waits for the next message.

SQLAlchemy's pool makes a new connection and session object for each use, which took a tenth of a decision's
time. Here both stay together, and a process has as many of them as threads that needed one at once.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models.core.deadline import Watch
from settings import settings

APPLICATION = "kairos"
"""The name by which the server knows the service's connections."""
# A host that vanished says nothing: whoever waits for it, and whoever holds locks for it, finds out within a
# minute. On a Unix socket, whose other end cannot vanish, this changes nothing.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # of what was sent and is not acknowledged; milliseconds
}
KEEPALIVE_OF_SERVER = (
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
    "-c tcp_user_timeout=60000"
)


class Link:
    """A connection, and the session that joins it, for one transaction at a time.

    begin: what opens the transaction, sent with its first statement. waiting: a statement that is to be sent
    with the next one. prepared: names of the statements that the server has planned for this connection.
    cursor: the driver's, for all messages that are not SQLAlchemy's.
    """

    def __init__(self) -> None:
        self.connection = engine().connect()
        self.connection.info["link"] = self
        self.session = Session(self.connection, expire_on_commit=False, info={"link": self})
        self.driver: Any = self.connection.connection.dbapi_connection
        self.cursor: Any = self.connection.connection.cursor()
        self.begin = self.waiting = b""
        self.prepared = set[str]()

    @property
    def is_idle(self) -> bool:
        """Return whether the server has no transaction open."""
        return bool(self.driver.get_transaction_status() == TRANSACTION_STATUS_IDLE)

    @property
    def is_usable(self) -> bool:
        """Return whether the next transaction can have it: it lives, and nothing of the last one is left."""
        return self.is_idle and not self.waiting and not self.connection.invalidated

    def opening(self) -> bytes:
        """Return the bytes that must reach the server before the next statement.

        They are the waiting statement, the transaction's begin, or nothing.
        """
        waiting, self.waiting = self.waiting, b""
        return waiting or (self.begin if self.is_idle else b"")

    def send(self, name: str, message: bytes) -> tuple[Any, ...] | None:
        """Send a message through the driver; the one row of its last statement, if it has one.

        Raises DBAPIError.
        """
        try:
            self.cursor.execute(message)
            return self.cursor.fetchone() if self.cursor.description else None
        except psycopg2.Error as error:
            broken = bool(self.driver.closed)
            raise DBAPIError.instance(
                name, None, error, psycopg2.Error, True, connection_invalidated=broken
            ) from error

    def undo(self) -> None:
        """End the server's transaction; a connection that cannot is given up."""
        self.waiting = b""
        try:
            if not self.is_idle:
                self.cursor.execute("ROLLBACK")
        except psycopg2.Error:
            self.connection.invalidate()

    def close(self) -> None:
        """Give the connection up."""
        self.connection.invalidate()
        self.connection.close()


@functools.cache
def engine() -> Engine:
    """The engine that makes connections. Its driver opens no transaction by itself.

    Left alone, the driver sends BEGIN as a message apart; here BEGIN travels with the first statement.
    """
    options = (
        "-c statement_timeout=30s -c lock_timeout=3s -c idle_in_transaction_session_timeout=60s "
        "-c timezone=UTC "  # what is read back must equal, as text too, what was answered first
        "-c plan_cache_mode=force_generic_plan "  # prepared statements are planned once
        "-c max_parallel_workers_per_gather=0 "  # a fit has one processor of the server's, not all of them
        f"{KEEPALIVE_OF_SERVER}"
    )
    new_engine = create_engine(
        settings().database_url,
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        pool_reset_on_return=None,
        hide_parameters=True,  # they name persons, and errors are logged
        connect_args={
            **{"connect_timeout": 2, "application_name": APPLICATION, "options": options},
            **KEEPALIVE,
        },
    )
    event.listen(new_engine, "before_cursor_execute", _begin_first)
    return new_engine


def _begin_first(connection: Connection, *_: Any) -> None:
    """Send BEGIN, or the statement that waits, before a statement of SQLAlchemy's."""
    link: Link = connection.info["link"]
    opening = link.opening()
    if opening:
        link.send("BEGIN", opening)


_idle: list[Link] = []
_inherited: list[Link] = []
_watch: list[Watch] = []


def _leave_to_parent() -> None:
    """Keep the parent's connections open and unused in its child."""
    # closed, as forgotten ones would be, they would end for the parent too
    _inherited.extend(_idle)
    _idle.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def lent() -> Iterator[Link]:
    """A link that nobody else has within the block: the one used last, which the processor's caches still
    know, or a new one. Raises DBAPIError."""
    try:
        link = _idle.pop()
    except IndexError:
        link = Link()
    for watch in _watch:
        watch.begin(id(link), link.driver)
    try:
        yield link
    finally:
        was_cut_off = [watch for watch in _watch if not watch.end(id(link))]
        if link.is_usable and not was_cut_off:
            _idle.append(link)
        else:
            link.close()


def bound(seconds: float) -> None:
    """Break every connection that one transaction of this process keeps for longer than `seconds`."""
    _watch[:] = [Watch(seconds)]


def forget() -> None:
    """Close the connections that nobody uses: their server went away. Other threads may do so as well."""
    with suppress(IndexError):
        while True:
            _idle.pop().close()
