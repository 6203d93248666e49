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

    when_failed: a function that settles what waits for the job; it is called in the transaction in which the
    job fails by the service's own fault. slow_tries: the most tries in all of a job that failed and is woken
    on the slow schedule; None where failed jobs of this kind are not woken.
    """

    name: str
    when_failed: WhenFailed | None = None
    slow_tries: int | None = None

    def tries(self, job: Job) -> int:
        """Return how often a job whose worker dies is tried."""
        # with the code of another system, most of the tries failed there and no worker died
        if job.code in {None, OWN_FAULT} or self.slow_tries is None:
            return LADDERS["job"].tries
        return self.slow_tries


KINDS: dict[str, Kind] = {}


def job_task(
    name: str, when_failed: WhenFailed | None = None, slow_tries: int | None = None
) -> Callable[[Run], Run]:
    """Declare a kind of job; the decorated function does one job and becomes the task `kairos.<name>`."""

    def register(run: Run) -> Run:
        KINDS[name] = Kind(name, when_failed, slow_tries)

        @functools.wraps(run)
        def task(job_id: int) -> None:
            alone(job_id, run)

        registered: Run = app.task(name=f"kairos.{name}", max_retries=3)(task)
        return registered

    return register


def alone(job_id: int, run: Run) -> None:
    """Run a job while holding its lock; do nothing where another process holds it.

    The lock dies with the process, so that the sweep knows which claimed jobs are still worked at.
    """
    with locks.of_job(job_id) as is_ours:
        if is_ours:
            run(job_id)


def settle(session: Session, job: Job) -> None:
    """Settle what waits for a job that failed by the service's own fault, as its kind says."""
    kind = KINDS.get(job.kind)
    if kind is not None and kind.when_failed is not None:
        kind.when_failed(session, job)
