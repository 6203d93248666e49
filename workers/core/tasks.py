"""The tasks of the machinery. Routes, limits and schedules stand in celeryconfig.py."""

from workers.core.celery_app import app
from workers.oversight import upkeep


@app.task(name="kairos.sweep")
def sweep() -> None:
    """Put back what dead workers hold and send what nobody took."""
    upkeep.sweep()
