"""A task that kills its worker each time: the back end it asks ends whoever asks."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]  # it publishes no types

from algorithm.core.backoff import LADDERS
from rehearsal.contract import Job
from rehearsal.people import NOTHING
from tests.storm import stored
from tests.storm.play import CountingClient
from tests.storm.trial import FREE, POISON, Deployment, Seed

SECONDS = 600.0  # its messages wait in the queue behind those of the study under fire


@dataclass
class Poisoning:
    """How it went: the job and the window at their end, when it killed a worker, and the seconds it took.

    meanwhile: how many jobs of the free-running study were done between the first of these deaths and the
    last.
    """

    job: Job
    window: str
    deaths: list[datetime]
    seconds: float
    meanwhile: int = 0


@dataclass
class Poison:
    """A back end on `port` that kills whichever process asks it, also one whose parent was killed.

    Whoever got away would take it for a back end that breaks off.
    """

    port: int
    deaths: list[datetime] = field(default_factory=list)

    def __enter__(self) -> Self:
        poison = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                poison.kill(self.client_address[1])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kill(self, port: int) -> None:
        """Kill the process at the other end of the connection from `port`."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or is not ours
                if (port, self.port) in _links(process):
                    process.kill()
                    self.deaths.append(datetime.now(UTC))


def _links(process: Any) -> set[tuple[int, int]]:
    """The ports of its connections, its own and the other end's."""
    return {(link.laddr.port, link.raddr.port) for link in process.net_connections("tcp") if link.raddr}


def take(deployment: Deployment, seed: Seed) -> Poisoning:
    """Decide and end one window of the poisoned study, and wait for the end of its job."""
    account, person = seed.accounts[POISON], seed.people[0]
    client = CountingClient(deployment.stack.api_url, account)
    user_id, point = person.enrolment.user_id, person.points[0]
    began = time.monotonic()
    with Poison(account.port) as poison:
        client.actions(user_id, point.decision_index, point.decision_time, NOTHING)
        number = client.end_decision_window(user_id, point.decision_index).job_id
        while (job := client.job(number)).state in {"queued", "running"}:
            if time.monotonic() - began > SECONDS:
                break
            time.sleep(0.2)
        (window,) = (name for name, count in client.study().windows.items() if count)
        return Poisoning(job, window, poison.deaths, time.monotonic() - began)


def beside(deployment: Deployment, poisoning: Poisoning) -> Poisoning:
    """The same, with what was done meanwhile; to be asked when the database is left in peace."""
    if not poisoning.deaths:
        return poisoning
    jobs = stored.read(deployment.database_url, stored.JOBS, FREE)
    first, last = poisoning.deaths[0], poisoning.deaths[-1]
    done = [job for job in jobs if job["state"] == "done" and first < job["finished_at"] < last]
    return replace(poisoning, meanwhile=len(done))


def wrong(poisoning: Poisoning, crashes: int) -> list[str]:
    """What is wrong with how it ended: the job must fail, with a reason, and after the deaths allowed.

    One more for each of the database's `crashes`: a claim is not waited for on its way to the disk, and one
    that is lost there is not counted. Claims may be more than deaths, since some are given back.
    """
    job, found = poisoning.job, []
    if job.state != "failed" or not job.reason:
        found.append(f"the poisoned job is {job.state}, reason {job.reason}")
    killed = len(poisoning.deaths)
    if not 1 < killed <= LADDERS["job"].tries + crashes:
        found.append(f"the poisoned job killed {killed} workers, the database died {crashes} times")
    if not poisoning.meanwhile:
        found.append("no other job was done while the poisoned one killed its workers")
    if poisoning.window != "failed":
        found.append(f"the poisoned window is {poisoning.window}")
    return found
