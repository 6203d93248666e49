"""The Celery application of the workers, and how they send ids to each other."""

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, celeryd_init, worker_process_init
from kombu.exceptions import ChannelError, KombuError
from redis.exceptions import RedisError
from structlog import get_logger

import logs
from settings import settings

PATIENCE = 10
app = Celery("kairos", include=["workers.tasks"])
app.config_from_object("celeryconfig")
logs.as_json()
log = get_logger()


@celeryd_init.connect
@beat_init.connect
def refuse_wrong_settings(**_: Any) -> None:
    """Look at the settings before the first task needs them. Raises WrongSettings."""
    settings()


@worker_process_init.connect
def give_way(**_: Any) -> None:
    """A fit may take every idle processor, and none that a decision needs."""
    os.nice(PATIENCE)


def send(kind: str, job_id: int) -> None:
    """Send a committed job's id. Without a broker nothing is lost: the sweep sends it later."""
    try:
        app.send_task(f"kairos.{kind}", [job_id])
    except (KombuError, RedisError, OSError) as error:
        log.warning("broker away", error=type(error).__name__, job_id=job_id)


def waiting(kind: str) -> bool:
    """Whether ids of this kind still lie in the broker; False also where there is no broker to ask."""
    queue = app.conf.task_routes[f"kairos.{kind}"]["queue"]
    try:
        with app.connection_or_acquire() as connection:
            return bool(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except (ChannelError, KombuError, RedisError, OSError):  # the first: Redis has no empty lists
        return False
