"""The only place that opens and commits transactions."""

import functools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import psycopg2
from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from settings import settings

T = TypeVar("T")
Isolation = Literal["REPEATABLE READ", "READ COMMITTED"]

# serialisation failure, deadlock, and a unique constraint that settled a race: the same work, run again,
# sees what the winner wrote
RACES = {"40001", "40P01", "23505"}
TRIES = 12


@functools.cache
def engine() -> Engine:
    """The connection pool of this process. Everything runs at REPEATABLE READ.

    A waiter on a row lock would otherwise go on with a snapshot older than the row it waited for; here it
    fails with 40001 and runs again, so that a decision never sees half of another one.
    """
    options = (
        "-c statement_timeout=30s -c lock_timeout=3s -c idle_in_transaction_session_timeout=60s "
        "-c timezone=UTC "  # what is read back must equal, as text too, what was answered first
        "-c plan_cache_mode=force_generic_plan"  # prepared statements are planned once
    )
    return create_engine(
        settings().database_url,
        isolation_level="REPEATABLE READ",
        pool_size=settings().api_threads,
        max_overflow=2,
        pool_timeout=2,
        hide_parameters=True,  # they name persons, and errors are logged
        connect_args={"connect_timeout": 2, "application_name": "kairos", "options": options},
    )


def transact(work: Callable[[Session], T], isolation: Isolation = "REPEATABLE READ") -> T:
    """Run `work(session)` in one transaction, commit, and return its value.

    `work` may run several times: it must act through the session alone. Races are run again; a connection
    that broke under us is replaced once. Every other error passes to the caller with nothing written.
    READ COMMITTED is for work that ends at one row which everybody changes, and whose other races are settled
    by constraints.
    """
    usual = isolation == "REPEATABLE READ"
    bound = engine() if usual else engine().execution_options(isolation_level=isolation)
    for attempt in range(TRIES):
        try:
            # the session joins the connection's own transaction: unused, as on the hot path, it costs nothing
            with bound.begin() as connection, Session(connection, expire_on_commit=False) as session:
                result = work(session)
                session.flush()
                return result
        except DBAPIError as error:
            if not _worth_another_try(error, attempt):
                raise
            time.sleep(random.random() * 0.002 * attempt)  # noqa: S311
    raise AssertionError("unreachable")


def _worth_another_try(error: DBAPIError, attempt: int) -> bool:
    if error.connection_invalidated:
        return attempt == 0
    return getattr(error.orig, "pgcode", None) in RACES and attempt < TRIES - 1


@dataclass(frozen=True)
class Prepared:
    """A statement with $1, $2, ... that each connection has planned once. `name` is unique in the program."""

    name: str
    statement: str
    parameters: int

    def row(self, session: Session, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """The statement's one row, or None, through the driver's own cursor. Raises DBAPIError."""
        connection = _pooled(session)
        try:
            with closing(connection.cursor()) as cursor:
                if self.name not in connection.info:
                    cursor.execute(f"PREPARE {self.name} AS {self.statement}")
                    connection.info[self.name] = True
                cursor.execute(self._execute, values)
                found: tuple[Any, ...] | None = cursor.fetchone()
        except psycopg2.Error as error:
            raise DBAPIError.instance(self.name, None, error, psycopg2.Error, True) from error
        return found

    @functools.cached_property
    def _execute(self) -> str:
        return f"EXECUTE {self.name} ({', '.join(['%s'] * self.parameters)})"


def _pooled(session: Session) -> PoolProxiedConnection:
    """The driver's connection under a session of `transact`."""
    bind = session.bind
    if not isinstance(bind, Connection):
        raise TypeError("prepared statements need a session that transact() made")
    return bind.connection
