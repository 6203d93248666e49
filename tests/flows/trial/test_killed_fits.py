"""Fits in parts, some of whose processes are killed or lose their work: the policy is that of one process."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from algorithm.core.backoff import LADDERS
from benchmarks.crowd import settle
from local.state import CLONE
from models.core.jobs import Job
from models.core.session import transact
from models.trial import fit_parts as part_rows
from models.trial import policies, sufficient_statistics
from tests.local.families import eventually
from tests.support.study import Study, begin
from tests.workers.trial.test_fit_parts import (
    EACH,
    PEOPLE,
    STUDY,
    asked,
    assert_same,
    crowded,
    fitted,
    helper,
    of_one_process,
)
from workers.core import sweep
from workers.core.celery_app import send, waiting
from workers.trial import fit_parts, refit
from workers.trial.tasks import fit_part

__all__ = ["crowded"]  # fixtures
DEADLY = (
    *("celery", "--app", "workers.app", "worker", "--queues", "refit,fit", "--concurrency", "2"),
    *("--include", "tests.support.poisoned"),
)
OPEN = "SELECT id FROM fit_parts WHERE result IS NULL ORDER BY id"
HELD = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 1536 AND objid = :id)"
STUCK = """
import time
from workers.core import kinds
from workers.trial import fit_parts, refit
fit_parts.take = lambda part_id: print(part_id, flush=True) or time.sleep(60)
kinds.alone({}, refit.run)
"""


def test_the_part_of_a_killed_worker_is_taken_again(crowded: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, chosen = asked(crowded), list[int]()
    database = create_engine(os.environ["DATABASE_URL"])
    with helper() as doomed, database.connect() as holding, ThreadPoolExecutor(1) as beside:

        def send_one(kind: str, part_id: int) -> None:
            """One part is for the worker, who cannot write what it gives."""
            if not chosen:
                chosen.append(part_id)
                holding.execute(text("SELECT FROM fit_parts WHERE id = :id FOR UPDATE"), {"id": part_id})
                send(kind, part_id)
                assert eventually(lambda: _is_held(part_id))

        def kill() -> None:
            try:
                assert eventually(lambda: len(chosen) == 1 and _open() == chosen)
                assert _is_held(chosen[0])
            finally:
                doomed.kill()
                doomed.wait()
                holding.rollback()

        monkeypatch.setattr(fit_parts, "send", send_one)
        killed = beside.submit(kill)
        refit.run(job_id)
        killed.result()
    policy = fitted(crowded, job_id)
    assert policy.report["parts"] == {"count": 2 * EACH, "processes": 1}
    assert_same(policy, of_one_process())


def test_what_a_killed_fit_leaves_is_swept_away_and_the_fit_done_again(crowded: Study) -> None:
    job_id = asked(crowded)
    code = (sys.executable, "-c", STUCK.format(job_id))
    with subprocess.Popen(code, cwd=CLONE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        assert len(_open()) == EACH
        assert _swept() == EACH
        worker.kill()
    assert eventually(lambda: _swept() == 0)
    refit.run(job_id)
    assert_same(fitted(crowded, job_id), of_one_process())


def test_a_part_that_kills_every_worker_ends_its_fit_as_failed_and_other_studies_are_fitted(
    crowded: Study, tmp_path: Path
) -> None:
    other = begin(crowded.service, "refit.min_interval_minutes=0", name="other")
    transact(lambda session: settle(session.connection(), "other", PEOPLE, 4))
    poisoned, job_id = asked(crowded), 0
    file = tmp_path / "deaths"
    with helper(*DEADLY, DEATHS=str(file)):
        assert eventually(lambda: _seen(crowded, poisoned)["attempts"] > 1, 60)
        job_id = asked(other)
        assert eventually(lambda: _seen(crowded, poisoned)["state"] == "failed", 90)
        assert eventually(lambda: _seen(other, job_id)["state"] == "done", 60)
        assert eventually(lambda: not (_swept() or waiting("fit_part") or waiting("refit")))
        deaths = file.stat().st_size
    job = _seen(crowded, poisoned)
    assert (job["attempts"], job["reason"]) == (LADDERS["job"].tries, sweep.DIED)
    assert LADDERS["job"].tries <= deaths <= LADDERS["job"].tries * (2 + (fit_part.max_retries or 0))
    assert file.stat().st_size == deaths
    assert crowded.call("GET", "/policies", role="researcher").get_json()["policies"][-1]["policy_id"] == 0
    policy = transact(lambda session: policies.numbered(session, 2, 1))
    assert policy is not None
    assert policy.report["parts"]["count"] == 2 * EACH


def test_a_fit_whose_parts_are_gone_has_lost_its_claim(
    crowded: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_back(part_id: int) -> bool:
        transact(lambda session: session.execute(text("UPDATE jobs SET state = 'queued'")))
        _swept()
        return False

    job_id = asked(crowded)
    with monkeypatch.context() as patch:
        patch.setattr(fit_parts, "take", put_back)
        refit.run(job_id)
    assert crowded.job(job_id)["state"] == "queued"
    refit.run(job_id)
    assert_same(fitted(crowded, job_id), of_one_process())


def test_statistics_that_vanish_during_a_fit_are_made_again(
    crowded: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_to_date = refit.up_to_date

    def forgotten(job: Job, snapshot: refit.Snapshot) -> sufficient_statistics.Members:
        found = up_to_date(job, snapshot)
        transact(lambda session: sufficient_statistics.forget(session, STUDY))
        return found

    job_id = asked(crowded)
    with monkeypatch.context() as patch:
        patch.setattr(refit, "up_to_date", forgotten)
        refit.run(job_id)
    assert crowded.job(job_id)["state"] == "queued"
    assert _swept() == 0
    refit.run(job_id)
    assert_same(fitted(crowded, job_id), of_one_process())


def _is_held(part_id: int) -> bool:
    return bool(transact(lambda session: session.scalar(text(HELD), {"id": part_id})))


def _seen(study: Study, job_id: int) -> dict[str, Any]:
    """The job, after a sweep now and then."""
    time.sleep(0.1)
    sweep.sweep()
    return study.job(job_id)


def _open() -> list[int]:
    return transact(lambda session: list(session.scalars(text(OPEN))))


def _swept() -> int:
    """Do what the beat sends every half minute; return how many parts are open then."""
    sweep.sweep()
    transact(part_rows.clear_abandoned)
    return len(_open())
