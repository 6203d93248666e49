"""gunicorn reads this by itself when it is started in this folder."""

import gc
from typing import Any

from models import deadline, session
from settings import settings

bind = settings().api_bind
workers = settings().api_processes
threads = settings().api_threads
worker_class = "gthread"
timeout = 30
graceful_timeout = 10
keepalive = 30
control_socket_disable = True  # it would be one socket in the home folder for every service of this user
accesslog = None  # the application logs one line per request, without the path

LONGEST_TRANSACTION_SECONDS = 8.0


def post_worker_init(_worker: Any) -> None:
    """A database that hangs must not take all threads with it; nor must the collection of garbage.

    What was imported lives as long as the process: looking through it again and again would only make
    some calls wait.
    """
    gc.collect()
    gc.freeze()
    deadline.limit(session.engine(), LONGEST_TRANSACTION_SECONDS)
