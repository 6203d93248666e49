"""The tasks of the machinery. Routes, limits and schedules stand in celeryconfig.py."""

from workers.core import sweep
from workers.core.celery_app import app


@app.task(name="kairos.sweep")
def sweep_jobs() -> None:
    """Put back what dead workers hold and send what nobody took."""
    sweep.sweep()
