"""A Celery application with one task that does nothing, to measure Celery's own cost under our settings.

None of the service's code runs in it: no hooks, no log lines, no lower priority.
"""

from celery import Celery

QUEUE = "noop"
NAME = "benchmarks.noop"
app = Celery("noop")
app.config_from_object("celeryconfig")
app.conf.task_routes = {NAME: {"queue": QUEUE}}


@app.task(name=NAME)
def noop(number: int) -> None:
    """Do nothing."""
