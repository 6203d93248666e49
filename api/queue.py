"""Sends job ids to the broker. The job is in the database: a lost message costs time, not work.

A thread of each process does the sending, so that no answer ever waits for a broker that is away or hangs.
"""

import functools
import threading
from queue import SimpleQueue

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from structlog import get_logger

from models.exports import EXPORT
from models.jobs import INGEST, REFIT

TASKS = {INGEST: "kairos.ingest", REFIT: "kairos.refit", EXPORT: "kairos.export"}
AWAY = (KombuError, RedisError, OSError)
log = get_logger()


@functools.cache
def producer() -> Celery:
    """A Celery application that only sends, and gives up soon."""
    app = Celery("kairos-api")
    app.config_from_object("celeryconfig")
    app.conf.broker_transport_options |= {"socket_timeout": 1, "max_retries": 0}
    return app


def send(kind: str, job_id: int) -> None:
    """Have the workers told of a committed job, soon. Where that fails the sweep sends the id later."""
    _outbox().put((kind, job_id))


@functools.cache
def _outbox() -> SimpleQueue[tuple[str, int]]:
    outbox: SimpleQueue[tuple[str, int]] = SimpleQueue()
    threading.Thread(target=_carry, args=(outbox,), daemon=True).start()
    return outbox


def _carry(outbox: SimpleQueue[tuple[str, int]]) -> None:
    while True:
        kind, job_id = outbox.get()
        try:
            producer().send_task(TASKS[kind], [job_id])
        except Exception as error:  # nothing may end this thread
            log.warning("not sent", error=type(error).__name__, job_id=job_id, dropped=_drop(outbox))


def _drop(outbox: SimpleQueue[tuple[str, int]]) -> int:
    """Forget what has gathered while the broker did not answer: the sweep knows it; how many ids it was."""
    dropped = 0
    while not outbox.empty():
        outbox.get()
        dropped += 1
    return dropped
