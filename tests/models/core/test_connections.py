"""How connections are lent: to one at a time, clean, and never to a child of the process that opened them."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier
from typing import NoReturn

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from models.core import connections, session, studies
from models.core.connections import Link
from models.core.session import Prepared, transact
from models.trial.decisions import Decision
from tests.support.service import Service
from tests.support.study import begin

ODD = timezone(timedelta(hours=5, minutes=45, seconds=7))
SWITCH = 1e-6


@pytest.fixture(autouse=True)
def several(shared_service: Service) -> Iterator[list[Link]]:
    """Five idle connections."""
    connections.forget()
    with ExitStack() as stack:
        links = [stack.enter_context(connections.lent()) for _ in range(5)]
    yield links
    connections.forget()


def one(session: Session) -> int:
    return int(session.scalar(text("SELECT 1")) or 0)


def test_where_one_connection_is_broken_the_others_are_not_tried(
    shared_service: Service, several: list[Link]
) -> None:
    study = begin(shared_service)
    for link in connections._idle:
        study.rows("SELECT pg_terminate_backend(%s)", link.driver.info.backend_pid)
    tries = []

    def work(session: Session) -> int:
        tries.append(session)
        return one(session)

    assert transact(work) == 1
    assert len(tries) == 2
    with connections.lent() as link:
        assert link not in several


def test_no_statement_takes_more_than_one_of_the_servers_processors(several: list[Link]) -> None:
    def plan(session: Session, *allowed: str) -> str:
        for setting in ("parallel_setup_cost = 0", "min_parallel_table_scan_size = 0", *allowed):
            session.execute(text(f"SET LOCAL {setting}"))
        return "\n".join(session.scalars(text("EXPLAIN SELECT count(*) FROM decisions")))

    assert "Gather" not in transact(plan)
    assert "Gather" in transact(lambda session: plan(session, "max_parallel_workers_per_gather = 2"))


def test_a_race_that_is_lost_after_long_work_is_run_again(
    shared_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(shared_service)
    monkeypatch.setattr(session, "PATIENCE_SECONDS", 0.0)
    tries: list[int] = []

    def work(open_session: Session) -> int:
        tries.append(one(open_session))
        if len(tries) < session.LEAST_TRIES:
            open_session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$"))
        return len(tries)

    assert transact(work) == session.LEAST_TRIES


def test_a_session_is_empty_when_it_is_lent_again(shared_service: Service) -> None:
    study = begin(shared_service)

    def work(session: Session) -> NoReturn:
        studies.by_id(session, study.study_id).name = "another"
        session.add(Decision())
        raise LookupError

    with pytest.raises(LookupError):
        transact(work)
    with connections.lent() as link:
        assert not [*link.session, *link.session.new, *link.session.dirty]
        assert link.is_idle
    assert transact(lambda session: studies.by_id(session, study.study_id).name) == study.name


def test_a_connection_whose_transaction_was_not_undone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(session: Session) -> NoReturn:
        session.execute(text("CREATE TABLE half_done ()"))
        raise LookupError

    def interrupted(_link: Link) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Link, "undo", interrupted)
        with pytest.raises(KeyboardInterrupt):
            transact(work)
    assert transact(lambda session: session.scalar(text("SELECT to_regclass('half_done')"))) is None


def test_a_child_has_connections_of_its_own_and_leaves_its_parents_alone() -> None:
    statement = text("SELECT pg_backend_pid()")
    before = transact(lambda session: int(session.scalar(statement) or 0))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(transact(lambda session: session.scalar(statement))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 32)) != before
    assert transact(lambda session: int(session.scalar(statement) or 0)) == before
    os.close(reading)
    os.close(writing)


def test_threads_that_all_find_the_server_gone_do_not_stumble_over_each_other() -> None:
    usual, together = sys.getswitchinterval(), Barrier(8)

    def forget(_: int) -> None:
        for _ in range(300):
            together.wait()
            with connections.lent():
                pass
            connections.forget()

    sys.setswitchinterval(SWITCH)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(forget, range(8)))
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        *(("float8", value) for value in (-0.0, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"))),
        *(("bigint", value) for value in (-5, 2**63 - 1, -(2**63))),
        *(("boolean", value) for value in (True, False)),
        *(("text", value) for value in ("it's 100 %s", "\\' ; --", None)),
        ("timestamptz", datetime(1, 1, 1, tzinfo=UTC)),
        ("timestamptz", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("timestamptz", datetime(2026, 3, 29, 1, 30, tzinfo=ODD)),
    ],
)
def test_every_value_reaches_a_prepared_statement_as_it_is(type_name: str, value: object) -> None:
    same = Prepared(f"same_{type_name}", f"SELECT CAST($1 AS {type_name})")
    (found,) = transact(lambda session: same.row(session, (value,))) or ()
    assert found == value
    assert repr(found) == repr(value) or isinstance(value, datetime)
