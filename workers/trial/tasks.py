"""The trial's tasks. Routes, limits and schedules stand in celeryconfig.py."""

from workers.core.celery_app import app
from workers.core.claims import alone
from workers.oversight import upkeep
from workers.trial import fit_parts, ingest, protocols, refit


@app.task(name="kairos.ingest", max_retries=3)
def ingest_window(job_id: int) -> None:
    """Fetch and store the survey data of one window."""
    alone(job_id, ingest.run)


@app.task(name="kairos.refit", max_retries=3)
def refit_study(job_id: int) -> None:
    """Fit one study's policy to all its rows."""
    alone(job_id, refit.run)


@app.task(name="kairos.fit_part", max_retries=3)
def fit_part(part_id: int) -> None:
    """Do a part of the fit of a large study, for whoever fits it."""
    fit_parts.take(part_id)


@app.task(name="kairos.close_stale_windows")
def close_stale_windows() -> None:
    """End the windows that no app ended in time."""
    upkeep.close_stale_windows()


@app.task(name="kairos.enter_protocols")
def enter_protocols() -> None:
    """Let protocol versions come in force whose time has come."""
    protocols.enter_due()
