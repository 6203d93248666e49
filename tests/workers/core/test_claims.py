"""What happens when the work of a claimed job goes wrong."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS
from local.state import CLONE
from models.core import jobs, locks
from models.core.jobs import OWN_FAULT, Job, LostClaim
from models.core.session import transact
from models.trial import windows
from tests.local.families import eventually
from tests.support.study import Study
from workers.core import sweep
from workers.core.claims import guarded
from workers.core.kinds import alone


def claimed(study: Study) -> Job:
    """The ingest job of an ended window, claimed."""
    study.enrol("ann")
    study.decide("ann")
    job_id = study.end("ann")["job_id"]
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    assert job is not None
    return job


@pytest.mark.parametrize("claim", [jobs.claim, windows.claim])
def test_a_worker_whose_clock_is_a_little_behind_takes_what_it_is_sent(
    only_study: Study, claim: Callable[[Session, int, datetime], object]
) -> None:
    only_study.enrol("ann")
    only_study.decide("ann")
    job_id = only_study.end("ann")["job_id"]
    due = transact(lambda session: session.get_one(Job, job_id).run_after)
    too_soon, behind = due - 2 * jobs.CLOCKS, due - jobs.CLOCKS / 2
    assert transact(lambda session: claim(session, job_id, too_soon)) is None
    assert transact(lambda session: claim(session, job_id, behind)) is not None


def shown(study: Study) -> tuple[str, int | None]:
    """State and code of the window."""
    window = study.call("GET", "/windows", role="researcher").get_json()["windows"][0]
    return window["state"], window["code"]


def test_an_unforeseen_error_fails_the_job_and_shows_the_window_as_failed(only_study: Study) -> None:
    job = claimed(only_study)

    def broken() -> None:
        raise ZeroDivisionError

    guarded(job, broken)
    seen = only_study.job(job.id)
    assert (seen["state"], seen["code"]) == ("failed", OWN_FAULT)
    assert "ZeroDivisionError" in seen["reason"]
    assert shown(only_study) == ("failed", OWN_FAULT)


def away() -> None:
    raise OperationalError("", {}, Exception())


def test_a_database_that_comes_back_gets_the_job_back(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.core.claims.PAUSES", (0.0,))
    job = claimed(only_study)
    guarded(job, away)
    kept = transact(lambda session: jobs.of_study(session, job.study_id, job.id))
    assert kept is not None
    assert (kept.state, kept.tries) == ("queued", 0)


def test_a_database_that_stays_away_leaves_the_claim_for_the_sweep(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.core.claims.PAUSES", ())
    job = claimed(only_study)
    with pytest.raises(OperationalError):
        guarded(job, away)
    assert only_study.job(job.id)["state"] == "running"


def test_a_job_is_let_be_while_somebody_works_at_it_and_put_back_when_nobody_does(only_study: Study) -> None:
    job_id = claimed(only_study).id

    def state() -> str:
        sweep.sweep()
        return str(only_study.job(job_id)["state"])

    with ThreadPoolExecutor(1) as elsewhere, locks.of_job(job_id) as ours:
        assert ours
        assert state() == "running"
        assert elsewhere.submit(alone, job_id, _never).result() is None
        elsewhere.submit(locks.close).result()
    assert state() == "queued"


def test_the_lock_of_a_killed_worker_is_free_at_once(only_study: Study) -> None:
    job_id = claimed(only_study).id
    hold = f"with locks.of_job({job_id}): print(1, flush=True); time.sleep(60)"
    code = f"import time; from models.core import locks\n{hold}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=CLONE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        with locks.of_job(job_id) as ours:
            assert not ours
        worker.kill()
        worker.wait()
    assert eventually(lambda: _free(job_id))


def _never(job_id: int) -> None:
    pytest.fail(f"job {job_id} is worked at twice")


def _free(job_id: int) -> bool:
    with locks.of_job(job_id) as ours:
        return ours


def test_an_ingest_whose_worker_dies_every_time_fails_and_its_window_says_so(only_study: Study) -> None:
    job_id = claimed(only_study).id
    for _ in range(LADDERS["job"].tries - 1):
        sweep.sweep()
        transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC) + timedelta(seconds=1)))
    sweep.sweep()
    seen = only_study.job(job_id)
    assert (seen["state"], seen["reason"]) == ("failed", sweep.DIED)
    assert shown(only_study) == ("failed", OWN_FAULT)


def test_one_death_does_not_end_an_ingest_whose_other_tries_failed_at_the_back_end(only_study: Study) -> None:
    job_id = claimed(only_study).id

    def fail_and_claim(session: Session) -> int:
        now = datetime.now(UTC)
        jobs.postpone(session, session.get_one(Job, job_id), now, 320, "HTTP status 500")
        again = jobs.claim(session, job_id, now)
        return again.tries if again else 0

    assert [transact(fail_and_claim) for _ in range(LADDERS["job"].tries)] == list(
        range(2, LADDERS["job"].tries + 2)
    )
    sweep.sweep()
    assert only_study.job(job_id)["state"] == "queued"


@pytest.mark.parametrize("name", ["attempts", "claimed_at"])
def test_who_lost_the_claim_writes_nothing(only_study: Study, name: str) -> None:
    job = claimed(only_study)
    moved_on = transact(lambda session: jobs.of_study(session, job.study_id, job.id))
    assert moved_on is not None
    before: Any = {"attempts": 1, "claimed_at": timedelta(seconds=1)}[name]
    setattr(job, name, getattr(job, name) - before)  # as a worker sees it who was thought dead

    def finish() -> None:
        transact(lambda session: jobs.finish(session, job, datetime.now(UTC)))

    with pytest.raises(LostClaim):
        finish()
    guarded(job, finish)
    assert only_study.job(job.id)["state"] == "running"
