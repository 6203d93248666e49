"""The settings of gunicorn, which reads this file by itself when it is started in this folder."""

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
    """Delete the counts of an earlier run, so that all begin at zero."""
    folder = Path(os.environ[METRICS])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for counts in folder.glob("*.db"):
        counts.unlink()


def post_worker_init(_worker: Any) -> None:
    """Prepare a child for its calls: spare it long collections of garbage and transactions without end."""
    gc.collect()
    # imported objects live as long as the process: searching them again and again would make some calls wait
    gc.freeze()
    # a database that hangs must not keep every thread waiting
    connections.bound(LONGEST_TRANSACTION_SECONDS)


def child_exit(_server: Any, worker: Any) -> None:
    """Keep a dead child's counts in the totals, which may not fall, and delete its gauges of the moment."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Delete the counts of this run."""
    for counts in Path(os.environ[METRICS]).glob("*.db"):
        counts.unlink(missing_ok=True)
