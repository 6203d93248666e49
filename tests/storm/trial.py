"""The seed database with everybody enrolled, and the stacks that each begin with a copy of it.

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
from tests.support.service import running

T = TypeVar("T")
LOCKSTEP, FREE, POISON = "lockstep", "free", "poison"
SHORT_CLOCKS = {
    "KAIROS_RETRY_SECONDS": "0.2",
    "KAIROS_SLOW_RETRY_SECONDS": "0.5",
    "KAIROS_SWEEP_SECONDS": "0.5",
    "KAIROS_CLAIM_SECONDS": "4",
    "KAIROS_VISIBILITY_SECONDS": "10",
}
PUT_BACK = '"event":"claims put back"'
LONGEST_PAUSE = 0.5  # seconds before a killed process is started again


@dataclass(frozen=True)
class Account:
    """The client account of a study, and the port of the study's back end."""

    study: str
    name: str
    password: str
    port: int


@dataclass(frozen=True)
class Seed:
    """A database to be copied, the client accounts by study, and the people who take part in each study."""

    database: str
    accounts: dict[str, Account]
    people: Sequence[Person]


@dataclass(frozen=True)
class Deployment:
    """A stack on a copy of the seed; `servers` may serve other stacks too. log: the workers' log file."""

    servers: Embedded
    supervisors: tuple[Supervisor, Supervisor]
    stack: Stack
    database_url: str
    log: Path

    def jobs_put_back(self) -> list[int]:
        """Return the ids of the jobs that were taken from workers that had died, one for each time."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        # a killed worker may have left half a line
        events = [json.loads(line)["jobs"] for line in lines if PUT_BACK in line and line.endswith("}")]
        return [job_id for jobs in events for job_id in jobs]

    def tend(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, start dead processes again meanwhile, and return its result."""
        # the work is in the thread, not the supervising: children die with the thread that started them
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(work)
            while not result.done():
                for supervisor_of_children in self.supervisors:
                    supervisor_of_children.tick()
                time.sleep(0.05)
            return result.result()


def sow(servers: Embedded, migrated: str, people: Sequence[Person], points: int) -> Seed:
    """Make the seed: three studies with all of `people` in each, in a copy of the database `migrated`."""
    database = f"seed_{uuid4().hex}"
    servers.postgres.create_database(database, template=migrated)
    env = environment(servers.state, servers.database_url(database), servers.broker_url(), free_port())
    settings = ("--set", "refit.min_interval_minutes=0", "--set", f"schedule.study_length={points}")
    accounts = {}
    with running(env) as service:
        for study in (LOCKSTEP, FREE, POISON):
            port = free_port()
            service.command(
                "study", "create", study, "--ema-url", f"http://{HOST}:{port}/ema_study", *settings
            )
            client = service.command("client", "create", f"app@{study}", "--study", study, "--role", "client")
            name, password = client["name"], client["password"]
            token = service.login(name, password)
            for person in people:
                fields = {key: value for key, value in asdict(person.enrolment).items() if value is not None}
                body = json.loads(json.dumps(fields, default=str))
                answer = service.call("POST", "/register", body, token)
                assert answer.status_code == 201, answer.text
            accounts[study] = Account(study, name, password, port)
    return Seed(database, accounts, people)


@contextmanager
def deployed(servers: Embedded, seed: Seed, folder: Path, broker: int) -> Iterator[Deployment]:
    """Run a stack on a copy of the seed, with its state in `folder` and the broker's database `broker`."""
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
