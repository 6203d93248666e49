"""A seed database with everybody enrolled, and stacks that each begin with a copy of it.

Copies share the studies' keys and the participants' ids, so the draws of two runs can be compared.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from local import supervisor
from local.embedded import Embedded
from local.ports import HOST, free_port
from local.stack import Stack, environment
from local.supervisor import Supervisor
from rehearsal.people import Person
from tests.support.service import Service, running

T = TypeVar("T")
LOCKSTEP, FREE, POISON = "lockstep", "free", "poison"
SHORT_CLOCKS = {
    "KAIROS_RETRY_SECONDS": "0.2",
    "KAIROS_SLOW_RETRY_SECONDS": "0.5",
    "KAIROS_SWEEP_SECONDS": "0.5",
    "KAIROS_CLAIM_SECONDS": "4",
    "KAIROS_VISIBILITY_SECONDS": "10",
}
LONGEST_PAUSE = 0.5  # before a killed process is started again


@dataclass(frozen=True)
class Account:
    """The client of a study, and the port at which the study's back end is asked."""

    study: str
    name: str
    password: str
    port: int


@dataclass(frozen=True)
class Seed:
    """A database that nobody uses, to be copied; its studies by name, and who takes part in each."""

    database: str
    accounts: dict[str, Account]
    people: Sequence[Person]


@dataclass(frozen=True)
class Deployment:
    """A stack of its own on a copy of the seed; `servers` may serve others too. log: what workers wrote."""

    servers: Embedded
    supervisors: tuple[Supervisor, Supervisor]
    stack: Stack
    database_url: str
    log: Path

    def tend(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, and start again meanwhile what dies (children belong to this thread)."""
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(work)
            while not doing.done():
                for one in self.supervisors:
                    one.tick()
                time.sleep(0.05)
            return doing.result()


def sow(servers: Embedded, migrated: str, people: Sequence[Person], points: int) -> Seed:
    """The three studies, with all of `people` in each, in a copy of the database `migrated`."""
    database = f"seed_{uuid4().hex}"
    servers.postgres.create_database(database, template=migrated)
    env = environment(servers.state, servers.database_url(database), servers.broker_url(), free_port())
    with running(env) as service:
        accounts = {name: _study(service, name, people, points) for name in (LOCKSTEP, FREE, POISON)}
    return Seed(database, accounts, people)


def _study(service: Service, name: str, people: Sequence[Person], points: int) -> Account:
    port = free_port()
    settings = ("--set", "refit.min_interval_minutes=0", "--set", f"schedule.study_length={points}")
    service.command("study", "create", name, "--ema-url", f"http://{HOST}:{port}/ema_study", *settings)
    made = service.command("client", "create", f"app@{name}", "--study", name, "--role", "client")
    token = service.login(made["name"], made["password"])
    for person in people:
        given = {key: value for key, value in asdict(person.enrolment).items() if value is not None}
        body = json.loads(json.dumps(given, default=str))
        answer = service.call("POST", "/register", body, token)
        assert answer.status_code == 201, answer.text
    return Account(name, made["name"], made["password"], port)


@contextmanager
def deployed(servers: Embedded, seed: Seed, folder: Path, broker: int) -> Iterator[Deployment]:
    """A stack on a copy of the seed, with the state in `folder` and the broker's database `broker`."""
    database = f"run_{uuid4().hex}"
    servers.postgres.create_database(database, template=seed.database)
    url = servers.database_url(database)
    env = environment(servers.state, url, servers.broker_url(broker), free_port()) | SHORT_CLOCKS
    with pytest.MonkeyPatch.context() as patch, Embedded(folder, database=False, broker=False) as home:
        patch.setattr(supervisor, "LONGEST_PAUSE", LONGEST_PAUSE)
        stack = Stack(home.state, home.supervisor, env)
        stack.start()
        supervisors = servers.supervisor, home.supervisor
        yield Deployment(servers, supervisors, stack, url, home.state.log("worker"))
