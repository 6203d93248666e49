"""A task that kills its worker each time: the back end that it calls kills the calling process."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

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
    """The course of a poisoned task: its job and its window's state at the end, and its workers' deaths.

    seconds: the time it took. meanwhile: the number of jobs of the free-running study that were done between
    the first of these deaths and the last.
    """

    job: Job
    window: str
    deaths: list[datetime]
    seconds: float
    meanwhile: int = 0


@dataclass
class Poison:
    """A back end on `port` that kills each process that calls it.

    A caller that escaped would take it for a back end that breaks off its connections.
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
        # all processes, not the worker's children: the caller's parent may have been killed by now
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # the process has ended, or is not ours
                links = [link for link in process.net_connections("tcp") if link.raddr]
                if any((link.laddr.port, link.raddr.port) == (port, self.port) for link in links):
                    process.kill()
                    self.deaths.append(datetime.now(UTC))


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
    """Return the poisoning with `meanwhile` filled in; the database must be up."""
    if not poisoning.deaths:
        return poisoning
    jobs = stored.read(deployment.database_url, stored.JOBS, FREE)
    first, last = poisoning.deaths[0], poisoning.deaths[-1]
    jobs_between = [job for job in jobs if job["state"] == "done" and first < job["finished_at"] < last]
    return replace(poisoning, meanwhile=len(jobs_between))


def wrong(poisoning: Poisoning, crashes: int) -> list[str]:
    """Return a sentence for each fault: the job must fail with a reason, after the deaths that are allowed.

    crashes: the number of the database's deaths.
    """
    job, faults = poisoning.job, []
    if job.state != "failed" or not job.reason:
        faults.append(f"the poisoned job is {job.state}, reason {job.reason}")
    killed = len(poisoning.deaths)
    # Claims do not wait for the disk, so a crash of the database may lose one, which is then not counted.
    # There may be more claims than deaths, since some are put back.
    if not 1 < killed <= LADDERS["job"].tries + crashes:
        faults.append(f"the poisoned job killed {killed} workers, the database died {crashes} times")
    if not poisoning.meanwhile:
        faults.append("no other job was done while the poisoned one killed its workers")
    if poisoning.window != "failed":
        faults.append(f"the poisoned window is {poisoning.window}")
    return faults
