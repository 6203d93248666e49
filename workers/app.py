"""The workers' program: the Celery application with the tasks of every area."""

from workers.core.celery_app import app

__all__ = ["TASKS", "app"]

TASKS = tuple(f"workers.{area}.tasks" for area in ("core", "trial", "oversight", "research"))
app.conf.include = list(
    TASKS
)  # imported when a worker or beat starts, not by Flower, which needs none of them
