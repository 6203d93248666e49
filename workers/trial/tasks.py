"""The tasks of the trial. Routes, limits and schedules stand in celeryconfig.py."""

from algorithm.core.backoff import LADDERS
from models.core.jobs import INGEST, REFIT
from models.core.session import transact
from models.trial import fit_parts as parts
from workers.core.celery_app import app
from workers.core.kinds import job_task
from workers.trial import fit_parts, ingest, protocols, refit, windows


@job_task(INGEST, when_failed=windows.settle_failed, slow_tries=LADDERS["back end, slowly"].tries)
def ingest_window(job_id: int) -> None:
    """Fetch and store the survey data of one window."""
    ingest.run(job_id)


@job_task(REFIT)
def refit_study(job_id: int) -> None:
    """Fit one study's policy to all its rows."""
    refit.run(job_id)


@app.task(name="kairos.fit_part", max_retries=3)
def fit_part(part_id: int) -> None:
    """Do a part of the fit of a large study, which another worker puts together."""
    fit_parts.take(part_id)


@app.task(name="kairos.clear_fit_parts")
def clear_fit_parts() -> None:
    """Delete the parts of fits that died or were given up."""
    transact(parts.clear_abandoned)


@app.task(name="kairos.close_stale_windows")
def close_stale_windows() -> None:
    """Close the windows that no app ended in time."""
    windows.close_stale()


@app.task(name="kairos.enter_protocols")
def enter_protocols() -> None:
    """Let the protocol versions come in force that are due."""
    protocols.enter_due()
