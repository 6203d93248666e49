"""The workers' application with one more task, which does nothing: what Celery itself costs."""

from workers import tasks
from workers.app import app

QUEUE = "noop"
NAME = "benchmarks.noop"
app.conf.task_routes = {**app.conf.task_routes, NAME: {"queue": QUEUE}}
__all__ = ["app", "tasks"]


@app.task(name=NAME)
def noop(number: int) -> None:
    """Nothing."""
