"""The tasks of exports. Routes, limits and schedules stand in celeryconfig.py."""

from workers.core.celery_app import app
from workers.core.claims import alone
from workers.research import exports


@app.task(name="kairos.export", max_retries=3)
def export_study(job_id: int) -> None:
    """Write one study's export."""
    alone(job_id, exports.run)


@app.task(name="kairos.expire_exports")
def expire_exports() -> None:
    """Delete old exports."""
    exports.expire()
