"""The Celery application of the workers, sending the ids of rows to the broker, and one log line per task."""

import inspect
import logging.config
import math
import time
from typing import Any

from celery import Celery, Task
from celery.signals import (
    beat_init,
    celeryd_init,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_process_init,
)
from kombu.exceptions import ChannelError, KombuError
from redis.exceptions import RedisError
from structlog import get_logger
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

import logs
from settings import settings
from workers.core import priority

CHATTER = ("celery.worker.strategy", "celery.app.trace")  # their line per task says less than ours
app = Celery("kairos")
app.config_from_object("celeryconfig")
logs.as_json()
log = get_logger()
_started_at: dict[str, float] = {}  # by task id, on the clock of time.perf_counter


@celeryd_init.connect
@beat_init.connect
def refuse_wrong_settings(**_: Any) -> None:
    """Read the settings before the first task needs them. Raises WrongSettings."""
    settings()


@setup_logging.connect
def log_lines(**_: Any) -> None:
    """Write Celery's own messages as lines of JSON; those about single tasks only from WARNING on."""
    logging.config.dictConfig(logs.standard(dict.fromkeys(CHATTER, "WARNING")))


@worker_process_init.connect
def start_child(**_: Any) -> None:
    """Let a child process that the worker has just started give way to the API."""
    priority.give_way()


@task_prerun.connect
def begin_task(task_id: str, task: Task[Any, Any], args: Any, **_: Any) -> None:
    """Put the ids of a task that starts into each of its log lines."""
    clear_contextvars()
    bind_contextvars(task_id=task_id, request_id=task.request.get("request_id"))
    if args:
        # the id that a task takes is logged under the name of the task's parameter, as job_id
        name = next(iter(inspect.signature(task.run).parameters))
        bind_contextvars(**{name: args[0]})
    _started_at[task_id] = time.perf_counter()


@task_postrun.connect
def end_task(task_id: str, task: Task[Any, Any], state: str | None, **_: Any) -> None:
    """Log the line of a finished task. Its outcome is Celery's, or `failed` if the service failed its job."""
    # the context comes last: the outcome that claims.py has bound there replaces Celery's
    fields = {"outcome": str(state).lower(), "study_id": None, **get_contextvars()}
    seconds = time.perf_counter() - _started_at.pop(task_id, math.nan)
    log.info("task", task=task.name, ms=round(1000 * seconds, 2), **fields)
    clear_contextvars()


def send(kind: str, row_id: int) -> bool:
    """Send the id of a committed row to the broker; return False where the broker is away.

    Nothing is lost then: the sweep sends it later, and the parts of a fit are done by the process that fits.
    """
    name = f"kairos.{kind}"
    try:
        app.send_task(name, [row_id], headers={"request_id": get_contextvars().get("request_id")})
    except (KombuError, RedisError, OSError) as error:
        log.warning("broker away", error=type(error).__name__, id=row_id, task=name)
        return False
    return True


def waiting(kind: str) -> bool:
    """Return whether ids of this kind still lie in the broker; False also where the broker is away."""
    queue = app.conf.task_routes[f"kairos.{kind}"]["queue"]
    try:
        with app.connection_or_acquire() as connection:
            return bool(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except (ChannelError, KombuError, RedisError, OSError):
        # ChannelError means that the queue does not exist: Redis keeps no empty lists
        return False
