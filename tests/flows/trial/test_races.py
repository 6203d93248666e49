"""Calls that meet: each test lets several wait for one row, in a known order and with snapshots of before."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from models.core import connections, session, studies
from models.core.session import transact
from tests.local.families import eventually
from tests.support.study import Study, cursor

Call = Callable[[], TestResponse]
MOVING = "SELECT FROM participants WHERE id = %(participant_id)s FOR NO KEY UPDATE"
CORRECTING = "LOCK TABLE answers IN SHARE MODE"
NOTING = "SELECT FROM studies WHERE id = %(participant_id)s FOR NO KEY UPDATE"
WAITING = """
WITH RECURSIVE waiting (pid) AS (
    SELECT %s
    UNION
    SELECT one.pid FROM pg_stat_activity one JOIN waiting ON waiting.pid = ANY (pg_blocking_pids(one.pid)))
SELECT count(*) - 1 AS number FROM waiting
"""


@contextmanager
def held(study: Study, participant_id: int, lock: str = MOVING) -> Iterator[int]:
    """Nobody moves the participant on while the block runs, or does what else `lock` prevents; gives the
    session that holds the lock."""
    with closing(psycopg2.connect(study.database_url.replace("+psycopg2", ""))) as connection:
        with connection.cursor() as holder:
            holder.execute(lock, {"participant_id": participant_id})
            yield connection.info.backend_pid
        connection.rollback()


@contextmanager
def patience() -> Iterator[None]:
    """No call gives up by itself: the first waits for as long as the others need to begin."""
    made = connections.engine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "PATIENCE_SECONDS", 60.0)
        event.listen(made, "connect", _wait_longer)
        connections.forget()
        try:
            yield
        finally:
            event.remove(made, "connect", _wait_longer)
            connections.forget()


def _wait_longer(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 0; SET statement_timeout = '120s'")


def waiting(study: Study, holder: int) -> int:
    """How many sessions wait for `holder`, or for one that does."""
    return int(study.rows(WAITING, holder)[0]["number"])


def meet(study: Study, participant_id: int, *calls: Call, lock: str = MOVING) -> list[TestResponse]:
    """The answers of `calls`, which all began before any of them could go on; they go on in this order."""
    with patience(), ThreadPoolExecutor(len(calls)) as pool:
        with held(study, participant_id, lock) as holder:
            begun: list[Future[TestResponse]] = []
            for call in calls:
                begun.append(pool.submit(call))
                assert eventually(lambda: waiting(study, holder) == len(begun))
        return [one.result() for one in begun]


def point(study: Study, index: int) -> Call:
    """A call for Ann's decision point `index`."""
    return lambda: study.post_actions("ann", decision_index=index)


def withdrawal(study: Study, participant_id: int) -> Call:
    """A call that takes the participant out."""
    path = f"/participants/{participant_id}/withdraw"
    return lambda: study.call("POST", path, {"reason": "asked"}, role="admin")


def bodies(answers: list[TestResponse]) -> list[Any]:
    return [answer.json for answer in answers]


def test_equal_calls_get_one_decision(study: Study) -> None:
    ann = study.enrol("ann")
    answers = meet(study, ann, *[lambda: study.post_actions("ann")] * 4)
    assert bodies(answers) == [answers[0].json] * 4
    assert answers[0].status_code == 200
    assert len(study.rows("SELECT FROM decisions WHERE participant_id = %s", ann)) == 1


def test_a_repeat_waits_for_nobody(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann")
    with held(study, ann):
        assert study.decide("ann") == first


def test_equal_ends_get_one_window_and_job(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann")
    answers = meet(study, ann, *[lambda: study.post_end("ann")] * 4)
    assert bodies(answers) == [answers[0].json] * 4
    assert answers[0].status_code == 202
    assert study.windows(ann) == [(1, "ended")]
    assert len(study.rows("SELECT FROM jobs WHERE study_id = %s", study.study_id)) == 1


def test_a_jump_sees_the_decision_that_was_made_while_it_waited(study: Study) -> None:
    ann = study.enrol("ann")
    study.live("ann", 1)
    second, fifth = meet(study, ann, lambda: study.post_actions("ann"), point(study, 5))
    assert (second.status_code, fifth.status_code) == (200, 200)
    assert study.windows(ann) == [(1, "ended"), (2, "end_missing"), (3, "missed"), (4, "missed")]


def test_a_withdrawal_closes_the_window_that_opened_while_it_waited(study: Study) -> None:
    ann = study.enrol("ann")
    study.live("ann", 1)
    decided, withdrawn = meet(study, ann, lambda: study.post_actions("ann"), withdrawal(study, ann))
    assert (decided.status_code, withdrawn.status_code) == (200, 200)
    assert study.windows(ann) == [(1, "ended"), (2, "end_missing")]
    assert study.show(ann)["phase"] == "WITHDRAWN"


def test_a_decision_that_waited_for_a_withdrawal_is_refused(study: Study) -> None:
    ann = study.enrol("ann")
    _, decided = meet(study, ann, withdrawal(study, ann), lambda: study.post_actions("ann"))
    assert decided.status_code == 409
    assert study.rows("SELECT FROM decisions WHERE participant_id = %s", ann) == []


def test_calls_for_a_stale_point_close_it_once(study: Study) -> None:
    ann = study.enrol("ann")
    study.age(study.decide("ann")["rid"], 9)
    answers = meet(study, ann, *[lambda: study.post_actions("ann")] * 3)
    assert bodies(answers) == [answers[0].json] * 3
    assert study.windows(ann) == [(1, "end_missing")]
    assert len(study.rows("SELECT FROM decisions WHERE participant_id = %s", ann)) == 2


def test_an_end_and_a_stale_closing_make_one_window(study: Study) -> None:
    ann = study.enrol("ann")
    study.age(study.decide("ann")["rid"], 9)
    ended, decided = meet(study, ann, lambda: study.post_end("ann"), lambda: study.post_actions("ann"))
    assert (ended.status_code, decided.status_code) == (202, 200)
    assert decided.json is not None
    assert decided.json["decision_index"] == 2
    assert study.windows(ann) == [(1, "ended")]


def test_two_indices_at_once_are_both_decided_in_their_order(study: Study) -> None:
    ann = study.enrol("ann")
    calls: list[Call] = [
        lambda: study.post_actions("ann", decision_index=1),
        lambda: study.post_actions("ann", decision_index=2),
    ]
    answers = meet(study, ann, *calls)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert study.windows(ann) == [(1, "end_missing")]


def test_a_lower_index_that_comes_too_late_is_refused(study: Study) -> None:
    ann = study.enrol("ann")
    calls: list[Call] = [
        lambda: study.post_actions("ann", decision_index=2),
        lambda: study.post_actions("ann", decision_index=1),
    ]
    answers = meet(study, ann, *calls)
    assert [answer.status_code for answer in answers] == [200, 409]
    assert study.windows(ann) == [(1, "missed")]


def test_first_uses_of_one_key_at_once_are_one_use(study: Study) -> None:
    ann = study.enrol("ann")
    answers = meet(study, ann, *[lambda: study.post_actions("ann", key="k")] * 3)
    assert bodies(answers) == [answers[0].json] * 3
    assert study.rows("SELECT decision_index FROM idempotency_keys WHERE participant_id = %s", ann) == [
        {"decision_index": 1}
    ]


def test_equal_corrections_at_once_are_one_correction(study: Study) -> None:
    ann = study.enrol("ann")
    rid = study.decide("ann")["rid"]
    meet(study, ann, *[lambda: study.post_actions("ann", app_use_flag=True)] * 3, lock=CORRECTING)
    assert len(study.rows("SELECT FROM answers WHERE decision_id = %s", rid)) == 1


def test_a_fit_that_holds_the_study_lets_decisions_and_ends_pass(study: Study) -> None:
    study.enrol("ann")

    def work(session: Session) -> None:
        studies.locked(session, study.study_id)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(study.live, "ann", 1).result()  # a call that waited for the study would get a 503

    transact(work)


def test_a_call_that_waits_too_long_is_told_to_try_again(study: Study) -> None:
    ann = study.enrol("ann")
    with held(study, ann):
        answer = study.post_actions("ann")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error_code"]) == (503, 907)
    assert "Retry-After" in answer.headers
    assert study.decide("ann")["decision_index"] == 1


def registration(study: Study, name: str) -> Call:
    """A back end that wants to be the study's first client."""
    body = {"api_user": f"{name}@{study.name}", "api_pass": "a password", "study": study.name}
    return lambda: study.service.call("POST", "/auth/register", body)


def test_of_clients_that_register_at_once_one_is_let_in(study: Study) -> None:
    """The policy of the application under test is `first`; each has seen that there is none yet."""
    study.tamper("DELETE FROM clients WHERE study_id = %s AND role = 'client'", study.study_id)
    calls = [registration(study, name) for name in ("one", "two", "three", "four")]
    answers = meet(study, study.study_id, *calls, lock=NOTING)
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403]
    stored = study.rows("SELECT FROM clients WHERE study_id = %s AND role = 'client'", study.study_id)
    assert len(stored) == 1


@pytest.mark.parametrize("threads", [16])
def test_registrations_at_once_make_one_participant(study: Study, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        ids = list(pool.map(lambda _: study.enrol("ann"), range(threads)))
    assert len(set(ids)) == 1
    with cursor(study.database_url) as found:
        found.execute("SELECT count(*) AS n FROM participant_zones WHERE study_id = %s", (study.study_id,))
        assert found.fetchall()[0]["n"] == 1
