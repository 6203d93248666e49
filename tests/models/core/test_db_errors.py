"""A database that dies in the middle of an answer, for which the driver has neither a class nor a code."""

from typing import NoReturn

import psycopg2
import pytest
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from models.core.session import transact
from tests.support.service import Service

WORDS = "error with status PGRES_TUPLES_OK and no message from the libpq"


def test_a_transaction_that_it_breaks_runs_once_more_and_then_says_that_the_database_is_away(
    service: Service,
) -> None:
    tries = []

    def work(session: Session) -> NoReturn:
        tries.append(session)
        raise DatabaseError("SELECT 1", None, psycopg2.DatabaseError(WORDS))

    with pytest.raises(OperationalError):
        transact(work)
    assert len(tries) == 2


def test_an_error_that_the_server_names_stays_what_it_is(service: Service) -> None:
    def work(session: Session) -> NoReturn:
        raise DatabaseError("SELECT 1", None, psycopg2.errors.UndefinedTable("no such table"))

    with pytest.raises(DatabaseError) as raised:
        transact(work)
    assert not isinstance(raised.value, OperationalError)
