"""The tasks of exports. Routes, limits and schedules stand in celeryconfig.py."""

from models.research.exports import EXPORT
from workers.core.celery_app import app
from workers.core.kinds import job_task
from workers.research import exports


@job_task(EXPORT)
def export_study(job_id: int) -> None:
    """Write one study's export."""
    exports.run(job_id)


@app.task(name="kairos.expire_exports")
def expire_exports() -> None:
    """Delete old exports."""
    exports.expire()
