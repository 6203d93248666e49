"""The circuit of a back end that fails: when it is left in peace, and who asks first when it may be back."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS, backoff
from models.core.session import transact
from models.trial import circuits, windows
from models.trial.circuits import CLOSED, HALF_OPEN, OPEN, Circuit
from tests.support.backend import BackEnd
from tests.support.study import Study
from tests.workers.trial.test_ingest import decide_and_end, item, outcome
from workers.trial import ingest

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MOST_FAILURES = LADDERS["circuit"].tries


def fail(session: Session, study_id: int, now: datetime, seconds: float) -> None:
    """Note a failure as an ingest does whose first pause is so long."""
    beyond = circuits.count_failure(session, study_id) - MOST_FAILURES + 1
    if beyond > 0:
        circuits.open_until(session, study_id, now, now + timedelta(seconds=backoff(beyond, seconds)))


def circuit() -> Circuit:
    found = transact(lambda session: circuits.of_study(session, 1))
    assert found is not None
    return found


def later(seconds: float) -> None:
    """Let time pass for all that waits."""
    for table, column in (("jobs", "run_after"), ("circuits", "retry_at")):
        moved = text(f"UPDATE {table} SET {column} = {column} - interval '{seconds} seconds'")
        transact(partial(Session.execute, statement=moved))


def test_a_dead_back_end_is_left_in_peace_and_asked_by_one_job_when_it_may_be_back(
    ema_study: Study, back_end: BackEnd
) -> None:
    people = [f"p{number}" for number in range(MOST_FAILURES + 3)]
    asked: list[tuple[dict[str, Any], int]] = []
    for name in people:
        ema_study.enrol(name)
        asked.append(decide_and_end(ema_study, name))
    back_end.status = 500
    for _, job_id in asked:
        ingest.run(job_id)
    assert len(back_end.asked) == MOST_FAILURES  # and then nobody was sent
    assert circuit().state == OPEN
    spared = asked[-1][1]
    job = ema_study.job(spared)
    assert (job["state"], job["code"], job["reason"]) == ("queued", 320, "the circuit is open")

    later(3600)
    for _, job_id in asked[:2]:  # the first one finds out; it fails again
        ingest.run(job_id)
    assert len(back_end.asked) == MOST_FAILURES + 1
    assert circuit().state == OPEN

    later(3600)
    (decided, job_id), name = asked[-1], people[-1]
    back_end.has({**item(decided), "user_id": name})
    ingest.run(job_id)
    assert outcome(ema_study, job_id)[0] == "done"
    assert (circuit().state, circuit().failures) == (CLOSED, 0)
    for (decided, job_id), name in zip(asked[:-1], people[:-1], strict=True):
        later(3600)
        back_end.has({**item(decided), "user_id": name})
        ingest.run(job_id)
        assert outcome(ema_study, job_id)[0] == "done"


def test_a_back_end_that_asks_for_peace_gets_it_from_all_who_wait(
    ema_study: Study, back_end: BackEnd
) -> None:
    asked = []
    for number in range(MOST_FAILURES + 2):
        ema_study.enrol(f"p{number}")
        asked.append(decide_and_end(ema_study, f"p{number}")[1])
    back_end.status, back_end.headers = 429, {"Retry-After": "3000"}
    for job_id in asked:
        ingest.run(job_id)
    assert len(back_end.asked) == MOST_FAILURES
    now = datetime.now(UTC)
    transact(fail, 1, now, 10)  # was sent before
    until = circuit().retry_at
    assert until is not None
    assert timedelta(seconds=2900) < until - now <= timedelta(seconds=3000)
    put_off = "SELECT count(*) FROM jobs WHERE reason = 'the circuit is open' AND run_after >= :until"
    waiting = transact(lambda session: session.execute(text(put_off), {"until": until}).scalar())
    assert waiting == 2


def test_who_was_put_off_while_one_asked_goes_on_as_soon_as_that_one_has_an_answer(
    ema_study: Study, back_end: BackEnd
) -> None:
    asked = []
    for name in ("p1", "p2"):
        ema_study.enrol(name)
        asked.append(decide_and_end(ema_study, name))
    for _ in range(MOST_FAILURES):
        transact(fail, 1, NOW, 10)
    (first, probing), (second, waiting) = asked
    claimed = transact(lambda session: windows.claim(session, probing, datetime.now(UTC)))
    assert claimed is not None
    probe = transact(ingest.admit, ingest.Claimed(*claimed), datetime.now(UTC))
    assert probe is not None
    ingest.run(waiting)
    assert outcome(ema_study, waiting)[0] == "queued"
    back_end.has({**item(first), "user_id": "p1"})
    ingest.fetch(probe)
    back_end.has({**item(second), "user_id": "p2"})
    ingest.run(waiting)
    assert outcome(ema_study, waiting)[0] == "done"


@pytest.mark.usefixtures("ema_study")
def test_while_one_finds_out_the_others_wait_but_not_for_ever() -> None:
    def asks(now: datetime) -> datetime | None:
        return transact(lambda session: circuits.wait_until(session, circuits.of_study(session, 1), now))

    for _ in range(MOST_FAILURES):
        transact(fail, 1, NOW, 10)
    assert asks(NOW) == NOW + timedelta(seconds=10)
    tries = NOW + timedelta(seconds=11)
    assert asks(tries) is None
    assert circuit().state == HALF_OPEN
    assert asks(tries) == tries + circuits.LOOK_AGAIN
    assert asks(tries + circuits.PROBE) is None  # it never came back


def test_saying_fail_is_an_answer(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    _, job_id = decide_and_end(ema_study)
    for _ in range(MOST_FAILURES - 1):
        transact(fail, 1, NOW, 10)
    back_end.body = {"status": "fail"}
    ingest.run(job_id)
    assert (circuit().state, circuit().failures) == (CLOSED, 0)
