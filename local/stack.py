"""The processes of the service on one machine, and the environment they share."""

from __future__ import annotations

import base64
import os
import secrets
import sys
import urllib.error
import urllib.request
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from local.ports import HOST
from local.process import Process, always
from local.state import CLONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.state import State
    from local.supervisor import Supervisor

MIGRATE = ("alembic", "upgrade", "head")
API = ("gunicorn", "api.app:create_app()")
WORKER = (
    *(
        "celery",
        "--app",
        "workers.app",
        "worker",
        "--queues",
        "ingest,refit,fit,export,upkeep",
        "--concurrency",
        "2",
    ),
    *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
)
FLOWER_USER = "kairos"
END_BYTES = 64 * 1024


def beat(schedule: str) -> tuple[str, ...]:
    """Return the command of Celery beat; `schedule` is the file in which it notes the tasks it last sent."""
    scheduler = ("--scheduler", "workers.beat:LockedScheduler")
    return (
        "celery",
        "--app",
        "workers.app",
        "beat",
        *scheduler,
        "--loglevel",
        "INFO",
        "--schedule",
        schedule,
    )


def flower(address: str, port: int, database: str) -> tuple[str, ...]:
    """Return the command of Flower, the task monitor.

    Its user and password are in FLOWER_BASIC_AUTH, never on the command line, which everybody can read.
    """
    options = (f"--address={address}", f"--port={port}")
    return ("celery", "--app", "workers.app", "flower", *options, "--persistent=True", f"--db={database}")


def environment(state: State, database_url: str, broker_url: str, api_port: int) -> dict[str, str]:
    """Return the environment of every process of the stack.

    The caller's environment overrides the defaults of keys and rules, but not the addresses.
    """
    defaults = {
        "KAIROS_MODE": "embedded",
        "KAIROS_SIGNING_KEYS": state.secret("signing_key", partial(secrets.token_urlsafe, 48)),
        "KAIROS_SECRETS_KEYS": state.secret("secrets_key", _fernet_key),
        "KAIROS_REGISTRATION": "first",
        "KAIROS_OUTGOING_HOSTS": HOST,
        "KAIROS_OUTGOING_PRIVATE": "true",
        "KAIROS_STORE": (state.root / "objects").as_uri(),
    }
    settled = {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "KAIROS_API_BIND": f"{HOST}:{api_port}",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**defaults, **os.environ, **settled}


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def python(command: tuple[str, ...]) -> list[str]:
    """Return `command` as a module that this interpreter runs."""
    # not as a script of the virtual environment, which names the folder it was made in: it may have moved
    return [sys.executable, "-m", *command]


class Stack:
    """API, worker, beat and, given a port for it, Flower, as children of `supervisor`.

    `settings` is the environment of all (see `environment`); the database is migrated first. StackError if
    one of them does not start.
    """

    def __init__(
        self,
        state: State,
        supervisor: Supervisor,
        settings: Mapping[str, str],
        flower_port: int | None = None,
    ) -> None:
        self.env = dict(settings)
        self.api_url = f"http://{settings['KAIROS_API_BIND']}"
        self.flower_port = flower_port
        self._state = state
        self._supervisor = supervisor

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of all children, by name."""
        return self._supervisor.pids

    def restart_dead(self) -> list[str]:
        """Start dead processes again, wait until all are ready, and return a sentence for each death."""
        return self._supervisor.restart_dead()

    @property
    def flower_password(self) -> str:
        """The password of Flower's user `kairos`."""
        return self._state.secret("flower_password", partial(secrets.token_urlsafe, 12))

    def start(self) -> None:
        """Migrate the database, then start every process and wait until it is ready."""
        self._supervisor.run(self._process("migrate", MIGRATE, always))
        schedule = str(self._state.root / "beat")
        # the API's processes keep their counts for /metrics in this folder; gunicorn makes and empties it
        counts = {"PROMETHEUS_MULTIPROC_DIR": str(self._state.root / "metrics")}
        self._supervisor.start(
            self._process("api", API, self._api_answers, counts),
            self._process("worker", WORKER, partial(worker_answers, self.env["BROKER_URL"])),
            self._process("beat", beat(schedule), always),
        )
        if self.flower_port:  # after the worker: Flower asks only once which workers there are
            self._supervisor.start(self._flower(self.flower_port))

    def _api_answers(self) -> bool:
        """Return whether this stack's API answers at its address."""
        request_id = secrets.token_hex(16)
        if not answers(f"{self.api_url}/running", {"X-Request-ID": request_id}):
            return False
        # Another stack's API may have been quicker to take the port; only ours writes the request in our log.
        with self._state.log("api").open("rb") as log:
            log.seek(-min(END_BYTES, log.seek(0, os.SEEK_END)), os.SEEK_END)
            return request_id in log.read().decode(errors="replace")

    def _flower(self, port: int) -> Process:
        command = flower(HOST, port, str(self._state.root / "flower.db"))
        login = f"{FLOWER_USER}:{self.flower_password}"
        # logged in, because another stack's Flower, which may have taken the port, has another password
        header = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        ready = partial(answers, f"http://{HOST}:{port}/", header)
        return self._process("flower", command, ready, {"FLOWER_BASIC_AUTH": login})

    def _process(
        self,
        name: str,
        command: tuple[str, ...],
        ready: Callable[[], bool],
        more: Mapping[str, str] | None = None,
    ) -> Process:
        return Process(name, python(command), {**self.env, **(more or {})}, ready=ready, folder=CLONE)


def answers(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Return whether a GET of `url` is answered with success."""
    try:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (an address of our own making)
        with urllib.request.urlopen(request, timeout=2):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False


def worker_answers(broker_url: str, number: int = 1) -> bool:
    """Return whether `number` workers of this broker answer within a second."""
    from celery import Celery  # here, because it takes half a second that a wrong command line need not wait
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    with Celery(broker=broker_url, set_as_current=False) as app:
        try:
            return len(app.control.ping(timeout=1, limit=number) or ()) == number
        except (OperationalError, RedisError, OSError):
            return False
