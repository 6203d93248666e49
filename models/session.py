"""The only place that opens and commits transactions."""

import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from settings import settings

T = TypeVar("T")
Isolation = Literal["REPEATABLE READ", "READ COMMITTED", "ONE CLAIM"]

# serialisation failure, deadlock, and a unique constraint that settled a race: the same work, run again,
# sees what the winner wrote
RACES = {"40001", "40P01", "23505"}
TRIES = 12
BEGIN: dict[Isolation, bytes] = {
    "REPEATABLE READ": b"BEGIN ISOLATION LEVEL REPEATABLE READ;",
    "READ COMMITTED": b"BEGIN ISOLATION LEVEL READ COMMITTED;",
    "ONE CLAIM": b"SET LOCAL synchronous_commit = off;",
}


@functools.cache
def engine() -> Engine:
    """The connection pool of this process, for `transact` alone: the driver opens no transaction by itself.

    A driver of its own accord sends BEGIN as a message apart; here it travels with the first statement.
    """
    options = (
        "-c statement_timeout=30s -c lock_timeout=3s -c idle_in_transaction_session_timeout=60s "
        "-c timezone=UTC "  # what is read back must equal, as text too, what was answered first
        "-c plan_cache_mode=force_generic_plan"  # prepared statements are planned once
    )
    made = create_engine(
        settings().database_url,
        isolation_level="AUTOCOMMIT",
        pool_size=settings().api_threads,
        max_overflow=2,
        pool_timeout=2,
        pool_use_lifo=True,  # of eight connections the one used last is the one that the caches still know
        pool_reset_on_return=None,  # `_transaction` leaves none open
        hide_parameters=True,  # they name persons, and errors are logged
        connect_args={"connect_timeout": 2, "application_name": "kairos", "options": options},
    )
    event.listen(made, "before_cursor_execute", _begin_first)
    return made


def transact(work: Callable[[Session], T], isolation: Isolation = "REPEATABLE READ") -> T:
    """Run `work(session)` in one transaction, commit, and return its value.

    `work` may run several times: it must act through the session alone. Races are run again; a connection
    that broke under us is replaced once. Every other error passes to the caller with nothing written.

    At REPEATABLE READ a waiter on a row lock, which would otherwise go on with a snapshot older than the row
    it waited for, fails with 40001 and runs again, so that a decision never sees half of another one. READ
    COMMITTED is for work that ends at one row which everybody changes, and whose other races are settled by
    constraints. ONE CLAIM is for a single statement that takes a job: its message is a transaction by itself,
    and the disk is not waited for, since a claim that dies with the server leaves the job queued.
    """
    for attempt in range(TRIES):
        try:
            with engine().connect() as connection, _transaction(connection, isolation):
                session = Session(connection, expire_on_commit=False)
                try:
                    result = work(session)
                    session.flush()
                finally:
                    if session.in_transaction():  # on the hot path it is not used at all
                        session.close()
                return result
        except DBAPIError as error:
            if not _worth_another_try(error, attempt):
                if _broke_off(error):
                    raise OperationalError(None, None, error, connection_invalidated=True) from error
                raise
            time.sleep(random.random() * 0.002 * attempt)  # noqa: S311
    raise AssertionError("unreachable")


def _worth_another_try(error: DBAPIError, attempt: int) -> bool:
    if error.connection_invalidated or _broke_off(error):
        return attempt == 0
    return getattr(error.orig, "pgcode", None) in RACES and attempt < TRIES - 1


def _broke_off(error: DBAPIError) -> bool:
    """Whether the server died in the middle of its answer: the driver has no class and no code for that."""
    return type(error.orig) is psycopg2.DatabaseError and error.orig.pgcode is None


@contextmanager
def _transaction(connection: Connection, isolation: Isolation) -> Iterator[None]:
    """What the block sends to the server is committed at its end, or undone where it fails."""
    connection.info["waiting"], connection.info["begin"] = b"", BEGIN[isolation]
    try:
        yield
        _finish(connection)
    except BaseException:
        _undo(connection)
        raise


def _begin_first(connection: Connection, *_: Any) -> None:
    """Before a statement of SQLAlchemy's: BEGIN where it is the first, and what waits to be sent."""
    opening = _opening(connection)
    if opening:
        _run(connection, "BEGIN", opening)


def _opening(connection: Connection) -> bytes:
    """What must reach the server before the next statement: BEGIN, a statement that waits, or nothing."""
    waiting: bytes = connection.info["waiting"]
    if waiting:
        connection.info["waiting"] = b""
    elif _driver(connection).get_transaction_status() == TRANSACTION_STATUS_IDLE:
        return bytes(connection.info["begin"])
    return waiting


def _finish(connection: Connection) -> None:
    """Commit; a statement that waits travels with it."""
    status = _driver(connection).get_transaction_status()
    if status == TRANSACTION_STATUS_INERROR:
        raise AssertionError("work went on after an error of the database")
    if connection.info["waiting"] or status != TRANSACTION_STATUS_IDLE:
        _run(connection, "COMMIT", _opening(connection) + b"COMMIT")


def _undo(connection: Connection) -> None:
    """End the server's transaction; a connection that cannot is given up."""
    try:
        driver = _driver(connection)
        if driver.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            with closing(driver.cursor()) as cursor:
                cursor.execute("ROLLBACK")
    except (psycopg2.Error, SQLAlchemyError):
        connection.invalidate()


def _run(connection: Connection, name: str, message: bytes) -> tuple[Any, ...] | None:
    """Send a message through the driver's own cursor; the one row of its last statement, where it has one.

    Raises DBAPIError.
    """
    driver = _driver(connection)
    try:
        with closing(driver.cursor()) as cursor:
            cursor.execute(message)
            return cursor.fetchone() if cursor.description else None
    except psycopg2.Error as error:
        broken = bool(driver.closed)
        raise DBAPIError.instance(
            name, None, error, psycopg2.Error, True, connection_invalidated=broken
        ) from error


PLAIN: dict[type, Callable[[Any], str]] = {
    type(None): lambda _none: "NULL",
    bool: str,
    int: str,
    float: "'{!r}'".format,  # as text, which PostgreSQL reads to the bit, with what is not finite
    datetime: "'{}'".format,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement with $1, $2, ... that each connection has planned once. `name` is unique in the program."""

    name: str
    statement: str

    def row(self, session: Session, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """The statement's one row, or None. Raises DBAPIError."""
        connection = _connection(session)
        message = self._message(connection, values)
        return _run(connection, self.name, _opening(connection) + message)

    def later(self, session: Session, values: Sequence[Any]) -> None:
        """Have it run with the transaction's next statement or with its COMMIT, in one message."""
        connection = _connection(session)
        message = self._message(connection, values)
        connection.info["waiting"] = _opening(connection) + message + b";"

    def _message(self, connection: Connection, values: Sequence[Any]) -> bytes:
        """EXECUTE with its values; prepared first where the connection has not.

        Numbers and instants need no quoting by the driver, which takes a microsecond for each.
        """
        if self.name not in connection.info:
            _run(connection, self.name, f"PREPARE {self.name} AS {self.statement}".encode())
            connection.info[self.name] = True
        plain = [PLAIN[type(value)](value) if type(value) in PLAIN else "%s" for value in values]
        quoted = [value for value in values if type(value) not in PLAIN]
        with closing(_driver(connection).cursor()) as cursor:
            message: bytes = cursor.mogrify(f"EXECUTE {self.name} ({', '.join(plain)})", quoted)
        return message


def _connection(session: Session) -> Connection:
    """The connection under a session of `transact`."""
    if not isinstance(session.bind, Connection):
        raise TypeError("prepared statements need a session that transact() made")
    return session.bind


def _driver(connection: Connection) -> Any:
    """The driver's own connection."""
    return connection.connection.dbapi_connection
