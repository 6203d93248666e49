"""The tasks of the machinery. Routes, limits and schedules stand in celeryconfig.py."""

from workers.core import sweep
from workers.core.celery_app import app


@app.task(name="kairos.sweep")
def sweep_jobs() -> None:
    """Put the jobs of dead workers back in the queue and send the jobs that no worker took."""
    sweep.sweep()
