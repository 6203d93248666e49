"""Sending job ids to the broker. The job is in the database: a lost message costs time, not work.

A thread of each process does the sending, so that no answer ever waits for a broker that is away or hangs.
"""

import contextlib
import functools
import threading
from queue import SimpleQueue
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, KombuError
from redis.exceptions import RedisError
from structlog import get_logger
from structlog.contextvars import bind_contextvars, get_contextvars

from models.core.jobs import QueuedJob

Sent = tuple[QueuedJob, str | None]  # a job, and the id of the request that queued it
AWAY = (KombuError, RedisError, OSError)
log = get_logger()


@functools.cache
def producer() -> Celery:
    """Return a Celery application that only sends, and gives up soon."""
    app = Celery("kairos-api")
    app.config_from_object("celeryconfig")
    app.conf.broker_transport_options |= {"socket_timeout": 1, "max_retries": 0}
    return app


def send(*jobs: QueuedJob) -> None:
    """Send the ids of committed jobs to the workers, soon. Where that fails the sweep sends them later."""
    for job in jobs:
        bind_contextvars(job_id=job.job_id)  # for the line of the request
        _outbox().put((job, get_contextvars().get("request_id")))


@functools.cache
def _outbox() -> SimpleQueue[Sent]:
    """Return the jobs of this process that are to be sent, and start the thread that sends them."""
    outbox: SimpleQueue[Sent] = SimpleQueue()

    def carry() -> None:
        while True:
            job, request_id = outbox.get()
            try:
                producer().send_task(f"kairos.{job.kind}", [job.job_id], headers={"request_id": request_id})
            except Exception as error:  # nothing may end this thread
                dropped = 0
                while not outbox.empty():  # the sweep sends what has gathered: trying it now would only wait
                    outbox.get()
                    dropped += 1
                log.warning("not sent", error=type(error).__name__, job_id=job.job_id, dropped=dropped)

    threading.Thread(target=carry, daemon=True).start()
    return outbox


def lengths() -> dict[str, int] | None:
    """Return the number of messages in each queue, or None where the broker does not answer."""
    app = producer()
    queues = sorted({route["queue"] for route in app.conf.task_routes.values()})
    lengths = dict.fromkeys(queues, 0)
    try:
        with app.connection() as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
            for queue in queues:
                with contextlib.suppress(ChannelError):  # an empty queue does not exist in Redis
                    channel: Any = connection.default_channel
                    lengths[queue] = int(channel.queue_declare(queue, passive=True).message_count)
    except AWAY:
        return None
    return lengths
