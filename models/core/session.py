"""The only place that opens and commits transactions."""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from psycopg2.extensions import TRANSACTION_STATUS_INERROR
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from models.core import db_errors
from models.core.connections import Link, forget, lent

P = ParamSpec("P")
T = TypeVar("T")
Isolation = Literal["REPEATABLE READ", "READ COMMITTED", "ONE CLAIM"]

# serialisation failure, deadlock, and a unique constraint that settled a race: the same work, run again,
# sees what the winner wrote
RACES = {"40001", "40P01", "23505"}
PATIENCE_SECONDS = 2.0  # a race of sixteen threads for one row ends after some hundredths
LEAST_TRIES = 5  # however long each of them takes
LONGEST_PAUSE_SECONDS = 0.02
BEGIN: dict[Isolation, bytes] = {
    "REPEATABLE READ": b"BEGIN ISOLATION LEVEL REPEATABLE READ;",
    "READ COMMITTED": b"BEGIN ISOLATION LEVEL READ COMMITTED;",
    "ONE CLAIM": b"SET LOCAL synchronous_commit = off;",
}


def transact(work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work(session, ...)` in one transaction at REPEATABLE READ, commit, and return its value.

    See `transact_at`.
    """
    return transact_at("REPEATABLE READ", work, *args, **kwargs)


def transact_at(
    isolation: Isolation, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run `work(session, ...)` in one transaction, commit, and return its value.

    `work` may run several times: it must act through the session alone. Races are run again, LEAST_TRIES
    times and then until PATIENCE_SECONDS are over; a connection that broke under us is replaced once. Every
    other error passes to the caller with nothing written, except what ONE CLAIM took.

    At REPEATABLE READ a waiter on a row lock, which would otherwise go on with a snapshot older than the row
    it waited for, fails with 40001 and runs again, so that a decision never sees half of another one. READ
    COMMITTED is for work that ends at one row which everybody changes, and whose other races are settled by
    constraints. ONE CLAIM is for a single statement that takes a job: its message is a transaction by itself,
    and the disk is not waited for, since a claim that dies with the server leaves the job queued.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    for attempt in itertools.count():
        try:
            with lent() as link:
                return _transaction(link, lambda session: work(session, *args, **kwargs), isolation)
        except DBAPIError as error:
            if error.connection_invalidated or db_errors.broke_off(error):
                forget()
            if not _worth_another_try(error, attempt, deadline):
                if db_errors.broke_off(error):
                    raise OperationalError(None, None, error, connection_invalidated=True) from error
                raise
            time.sleep(random.random() * min(0.002 * attempt, LONGEST_PAUSE_SECONDS))  # noqa: S311
    raise AssertionError("unreachable")


def _worth_another_try(error: DBAPIError, attempt: int, deadline: float) -> bool:
    if error.connection_invalidated or db_errors.broke_off(error):
        return attempt == 0
    may_try = attempt < LEAST_TRIES - 1 or time.monotonic() < deadline
    return db_errors.code_of(error) in RACES and may_try


def _transaction(link: Link, work: Callable[[Session], T], isolation: Isolation) -> T:
    """Run `work` and commit what it sent to the server, or undo that where it fails."""
    link.begin = BEGIN[isolation]
    try:
        try:
            result = work(link.session)
            link.session.flush()
        finally:
            if link.session.in_transaction():  # on the hot path it is not used at all
                link.session.close()
        if link.driver.get_transaction_status() == TRANSACTION_STATUS_INERROR:
            raise AssertionError("work went on after an error of the database")
        if link.waiting or not link.is_idle:  # a statement that waits travels with the commit
            link.send("COMMIT", link.opening() + b"COMMIT")
    except BaseException:
        link.undo()
        raise
    return result


PLAIN: dict[type, Callable[[Any], str]] = {
    type(None): lambda _none: "NULL",
    bool: str,
    # as texts, of which PostgreSQL makes what the statement has there; a number it would first read as one of
    # another type
    int: "'{}'".format,
    float: "'{!r}'".format,  # to the bit, with what is not finite
    datetime: "'{}'".format,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement with $1, $2, ... that each connection has planned once. `name` is unique in the program."""

    name: str
    statement: str

    def row(self, session: Session, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """Return the statement's one row, or None. Raises DBAPIError."""
        link: Link = session.info["link"]
        message = self._message(link, values)
        return link.send(self.name, link.opening() + message)

    def later(self, session: Session, values: Sequence[Any]) -> None:
        """Have the statement run with the transaction's next one or with its COMMIT, in one message."""
        link: Link = session.info["link"]
        message = self._message(link, values)
        link.waiting = link.opening() + message + b";"

    def _message(self, link: Link, values: Sequence[Any]) -> bytes:
        """Return EXECUTE with its values, after preparing the statement where the connection has not.

        Numbers and instants need no quoting by the driver, which takes a microsecond for each.
        """
        if self.name not in link.prepared:
            link.send(self.name, f"PREPARE {self.name} AS {self.statement}".encode())
            link.prepared.add(self.name)
        plain, quoted = list[str](), list[Any]()
        for value in values:
            literal = PLAIN.get(type(value))
            plain.append("%s" if literal is None else literal(value))
            if literal is None:
                quoted.append(value)
        message: bytes = link.cursor.mogrify(f"EXECUTE {self.name} ({', '.join(plain)})", quoted)
        return message
