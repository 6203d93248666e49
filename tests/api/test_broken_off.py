"""A database that dies in the middle of an answer, for which the driver has neither a class nor a code."""

from contextlib import ExitStack
from typing import NoReturn

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from models import connections, studies
from models.decisions import Decision
from models.session import transact
from tests.api.conftest import Deployment
from tests.api.trial import begin
from tests.service import Service

WORDS = "error with status PGRES_TUPLES_OK and no message from the libpq"


def test_a_transaction_that_it_breaks_runs_once_more_and_then_says_that_the_database_is_away(
    bare_service: Service,
) -> None:
    tries = []

    def work(session: Session) -> NoReturn:
        tries.append(session)
        raise DatabaseError("SELECT 1", None, psycopg2.DatabaseError(WORDS))

    with pytest.raises(OperationalError):
        transact(work)
    assert len(tries) == 2


def test_where_one_connection_is_broken_the_others_are_not_tried(deployment: Deployment) -> None:
    with ExitStack() as several:
        links = [several.enter_context(connections.lent()) for _ in range(5)]
    tries = []

    def work(session: Session) -> int:
        tries.append(session)
        return int(session.scalar(text("SELECT 1")) or 0)

    trial = begin(*deployment)
    for link in links:
        trial.rows("SELECT pg_terminate_backend(%s)", link.driver.info.backend_pid)
    assert transact(work) == 1
    assert len(tries) == 2
    with connections.lent() as link:
        assert link not in links


def test_a_session_is_empty_when_it_is_lent_again(deployment: Deployment) -> None:
    trial = begin(*deployment)

    def work(session: Session) -> NoReturn:
        studies.by_id(session, trial.study_id).name = "another"
        session.add(Decision())
        raise LookupError

    with pytest.raises(LookupError):
        transact(work)
    with connections.lent() as link:
        assert not [*link.session, *link.session.new, *link.session.dirty]
        assert link.is_idle
    assert transact(lambda session: studies.by_id(session, trial.study_id).name) == trial.name


def test_an_error_that_the_server_names_stays_what_it_is(bare_service: Service) -> None:
    def work(session: Session) -> NoReturn:
        raise DatabaseError("SELECT 1", None, psycopg2.errors.UndefinedTable("no such table"))

    with pytest.raises(DatabaseError) as raised:
        transact(work)
    assert not isinstance(raised.value, OperationalError)
