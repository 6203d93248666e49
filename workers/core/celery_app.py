"""The Celery application of the workers, how they send ids to each other, and their log line per task."""

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

CHATTER = ("celery.worker.strategy", "celery.app.trace")  # a line of their own for what ours tells better
app = Celery("kairos")
app.config_from_object("celeryconfig")
logs.as_json()
log = get_logger()
_began: dict[str, float] = {}


@celeryd_init.connect
@beat_init.connect
def refuse_wrong_settings(**_: Any) -> None:
    """Look at the settings before the first task needs them. Raises WrongSettings."""
    settings()


@setup_logging.connect
def log_lines(**_: Any) -> None:
    """Celery's own words are lines of JSON too; those about single tasks only where something is wrong."""
    logging.config.dictConfig(logs.standard(dict.fromkeys(CHATTER, "WARNING")))


@worker_process_init.connect
def begin_anew(**_: Any) -> None:
    """A child of the worker's begins: it gives way to the API."""
    priority.give_way()


@task_prerun.connect
def begin_task(task_id: str, task: Task[Any, Any], args: Any, **_: Any) -> None:
    """From here on every line of this task carries its ids."""
    clear_contextvars()
    bind_contextvars(task_id=task_id, request_id=task.request.get("request_id"))
    if args:
        bind_contextvars(**{_id_name(task): args[0]})
    _began[task_id] = time.perf_counter()


@task_postrun.connect
def end_task(task_id: str, task: Task[Any, Any], state: str | None, **_: Any) -> None:
    """One line per task. Its outcome is Celery's, or `failed` where the job failed by a fault of ours."""
    known = {"outcome": str(state).lower(), "study_id": None, **get_contextvars()}
    seconds = time.perf_counter() - _began.pop(task_id, math.nan)
    log.info("task", task=task.name, ms=round(1000 * seconds, 2), **known)
    clear_contextvars()


def _id_name(task: Task[Any, Any]) -> str:
    """The name under which the id that a task takes stands in the log: that of its parameter."""
    return next(iter(inspect.signature(task.run).parameters))


def send(kind: str, row_id: int) -> bool:
    """Send a committed row's id; False where the broker is away.

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
    """Whether ids of this kind still lie in the broker; False also where there is no broker to ask."""
    queue = app.conf.task_routes[f"kairos.{kind}"]["queue"]
    try:
        with app.connection_or_acquire() as connection:
            return bool(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except (ChannelError, KombuError, RedisError, OSError):  # the first: Redis has no empty lists
        return False
