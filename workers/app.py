"""The workers' program: the Celery application with the tasks of every area."""

from workers.core.celery_app import app

__all__ = ["TASKS", "app"]

TASKS = tuple(f"workers.{area}.tasks" for area in ("core", "trial", "oversight", "research"))
# The list is imported when a worker or beat starts; Flower, which needs no task, never imports it.
app.conf.include = list(TASKS)
