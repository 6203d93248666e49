"""gunicorn reads this by itself when it is started in this folder."""

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import logs
from models.core import connections
from settings import settings

bind = settings().api_bind
workers = settings().api_processes
threads = settings().api_threads
worker_class = "api.server.Worker"
timeout = 30
graceful_timeout = 10
keepalive = 30
control_socket_disable = True  # it would be one socket in the home folder for every service of this user
logger_class = "api.server.ErrorLog"  # the application logs one line per request, without the path
logconfig_dict = logs.standard({}, ("gunicorn.error",))

LONGEST_TRANSACTION_SECONDS = 8.0
METRICS = "PROMETHEUS_MULTIPROC_DIR"  # the children count their requests in files of this folder

# before a child imports the application, whose counters look for it then
if METRICS not in os.environ:
    os.environ[METRICS] = tempfile.mkdtemp(prefix="kairos-metrics-")


def on_starting(_server: Any) -> None:
    """Counts of an earlier run are over: all begin at zero."""
    folder = Path(os.environ[METRICS])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("*.db"):
        old.unlink()


def post_worker_init(_worker: Any) -> None:
    """A database that hangs must not take all threads with it; nor must the collection of garbage.

    What was imported lives as long as the process: looking through it again and again would only make
    some calls wait.
    """
    gc.collect()
    gc.freeze()
    connections.bound(LONGEST_TRANSACTION_SECONDS)


def child_exit(_server: Any, worker: Any) -> None:
    """A dead child's counts stay in the totals, which may not fall; what only the living have goes."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Leave no counts behind."""
    for counts in Path(os.environ[METRICS]).glob("*.db"):
        counts.unlink(missing_ok=True)
