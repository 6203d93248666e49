"""Kinds of jobs: each is declared once, with the function that does it, in the `tasks.py` of its area.

A kind `x` is the task `kairos.x`, whose queue stands in celeryconfig.py.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS
from models.core import locks
from models.core.jobs import OWN_FAULT, Job
from workers.core.celery_app import app

Run = Callable[[int], None]
WhenFailed = Callable[[Session, Job], None]


class Kind(NamedTuple):
    """A kind of job.

    when_failed: settles what waits for the job, in the transaction in which it fails by the service's own
    fault. slow_tries: where a failed job of this kind wakes by itself, the most tries that it has in all.
    """

    name: str
    when_failed: WhenFailed | None = None
    slow_tries: int | None = None

    def tries(self, job: Job) -> int:
        """The most tries of a job whose worker dies.

        Most tries of one that has a code of another system were failures there and no deaths.
        """
        if job.code in {None, OWN_FAULT} or self.slow_tries is None:
            return LADDERS["job"].tries
        return self.slow_tries


KINDS: dict[str, Kind] = {}


def job_task(
    name: str, when_failed: WhenFailed | None = None, slow_tries: int | None = None
) -> Callable[[Run], Run]:
    """Declare a kind of job, and make the function that does one its task, under the job's lock."""

    def register(run: Run) -> Run:
        KINDS[name] = Kind(name, when_failed, slow_tries)

        @functools.wraps(run)
        def task(job_id: int) -> None:
            alone(job_id, run)

        registered: Run = app.task(name=f"kairos.{name}", max_retries=3)(task)
        return registered

    return register


def alone(job_id: int, run: Run) -> None:
    """Run a job under its lock: as long as this process lives and works at it, the sweep lets it be."""
    with locks.of_job(job_id) as is_ours:
        if is_ours:
            run(job_id)


def settle(session: Session, job: Job) -> None:
    """Do what the kind of a job does when it has failed by the service's own fault."""
    kind = KINDS.get(job.kind)
    if kind is not None and kind.when_failed is not None:
        kind.when_failed(session, job)
