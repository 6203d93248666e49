"""The workers' program: the Celery application with the tasks of every area."""

from workers.core.celery_app import app

# Celery imports these when a worker or beat starts, not for Flower, which needs none of them
app.conf.include = [f"workers.{area}.tasks" for area in ("core", "trial", "oversight", "research")]

__all__ = ["app"]
