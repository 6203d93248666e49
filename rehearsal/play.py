"""The play: everybody walks through their decision points, and every answer and the counts are checked."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from rehearsal.backend import Backend
from rehearsal.checks import Distinct, Ledger, Played, check_decision
from rehearsal.client import ApiError, Client
from rehearsal.contract import Brushing, Decision, Job, StudyReport, Survey
from rehearsal.people import Brusher, Person, Point

REPEATED = 0.05  # share of the calls that are made twice: at once, or after the window's end
ANSWERED = "every call is answered as the contract says"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Expected:
    """The counts that GET /study must report once every job is done."""

    participants: int
    decisions: int
    ingested: int
    missed: int
    discrepancies: int
    rows: int
    fallbacks: dict[str, int]


class Rehearsal:
    """One play of `people` at the service behind `client`, which fetches their data from `backend`."""

    def __init__(
        self, client: Client, backend: Backend, people: Sequence[Person | Brusher], threads: int, seed: int
    ) -> None:
        self.client, self.backend, self.threads = client, backend, threads
        self.played = [Played(person) for person in people]
        self.ledger = Ledger()
        self.action_seconds: list[float] = []
        self.walked_seconds = self.settled_seconds = 0.0
        self._rids, self._jobs = Distinct(), Distinct()
        self._chance = {p.enrolment.user_id: random.Random(f"{seed} {p.enrolment.user_id}") for p in people}

    def enrol(self) -> None:
        """Register everybody. Raises Unreachable, as the other methods do."""
        with self._pool() as pool:
            list(pool.map(lambda played: self._guarded(self._register, played), self.played))

    def walk(self, step: Callable[[int], object]) -> None:
        """Play all rounds: everybody decides their next point, then all these windows end.

        `step(n)` is called after each round with its number of points.
        """
        rounds = max(len(played.person.points) for played in self.played)
        started = time.monotonic()
        with self._pool() as pool:
            for number in range(rounds):
                self._each(pool, number, self._decide)
                self._each(pool, number, self._end)
                # A record is part of the next state; in a trial it has hours to arrive before the next point.
                if isinstance(self.played[0].person, Brusher):
                    self._each(pool, number, self._wait_for_record)
                step(sum(number < len(played.person.points) for played in self.played))
        self.walked_seconds = time.monotonic() - started

    def decisions(self) -> list[Decision]:
        """Return every decision, each once."""
        return [decision for played in self.played for decision in played.decisions.values()]

    def expected(self) -> Expected:
        """Return the counts that the service must have stored by now."""
        decisions = self.decisions()
        return Expected(
            participants=len(self.played),
            decisions=len(decisions),
            ingested=sum(len(played.jobs) for played in self.played),
            missed=sum(max(p.decisions) - len(p.decisions) for p in self.played if p.decisions),
            # points whose time of day contradicts their index (odd is the morning)
            discrepancies=sum(
                point.evening != (point.decision_index % 2 == 0)
                for played in self.played
                for point in played.person.points
                if point.decision_index in played.decisions
            ),
            rows=sum(played.rows() for played in self.played),
            fallbacks=dict(Counter(decision.fallback_level for decision in decisions)),
        )

    def settle(self, patience: float) -> StudyReport:
        """Poll GET /study until all is ingested and learnt, or nothing has changed for `patience` seconds."""
        started = moved = time.monotonic()
        report, expected = self.client.study(), self.expected()
        while not is_settled(report, expected) and time.monotonic() - moved < patience:
            time.sleep(POLL_SECONDS)
            last, report = report, self.client.study()
            moved = moved if report == last else time.monotonic()
        self.settled_seconds = time.monotonic() - started
        return report

    def not_ingested(self) -> list[str]:
        """Return a line for each window that is not ingested, with the reason of its job."""
        return [
            f"{played.person.enrolment.user_id} window {index}: job {job.job_id} {job.state}, {job.reason}"
            for played in self.played
            for index, job in ((index, self.client.job(number)) for index, number in played.jobs.items())
            if job.state != "done"
        ]

    def refit(self, patience: float) -> None:
        """Ask for a refit, as a back end may, and check that its job is done in time."""
        job = self._wait_for_job(self.client.update_parameters().job_id, patience)
        self.ledger.equal("a refit on request is done", job.state, "done")

    def _wait_for_job(self, job_id: int, patience: float) -> Job:
        """Return the job when it is done or failed, or as it is after `patience` seconds."""
        until = time.monotonic() + patience
        while (job := self.client.job(job_id)).state in {"queued", "running"}:
            if time.monotonic() > until:
                break
            time.sleep(POLL_SECONDS)
        return job

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                yield pool
            except BaseException:  # the play is over: the other threads need not wait for the service
                self.client.patience = 0.0
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _each(self, pool: ThreadPoolExecutor, number: int, call: Callable[[Played, Point], None]) -> None:
        """Make a call for everybody who has a point `number` and was not refused before."""
        going = [p for p in self.played if p.going and number < len(p.person.points)]
        list(pool.map(lambda p: self._guarded(call, p, p.person.points[number]), going))

    def _guarded(self, call: Callable[..., None], played: Played, *point: Point) -> None:
        """Make a call; a refusal is a failed check and ends this person's play."""
        try:
            call(played, *point)
            self.ledger.check(ANSWERED, True)
        except ApiError as error:
            self.ledger.check(ANSWERED, False, str(error))
            played.going = False

    def _register(self, played: Played) -> None:
        self.backend.enrol(played.person.enrolment.user_id)
        self.client.register(played.person.enrolment)

    def _decide(self, played: Played, point: Point) -> None:
        index = point.decision_index
        if isinstance(played.person, Person):
            played.surveys[index] = played.person.answers(index, played.actions)
        started = time.perf_counter()
        decision = self._ask(played, point)
        self.action_seconds.append(time.perf_counter() - started)
        check_decision(self.ledger, self._rids, played, point, decision)
        played.decisions[index] = decision
        self.backend.store(played.person.enrolment, self._answers(played, index), decision)
        self._perhaps_ask_again(played, point)

    def _ask(self, played: Played, point: Point) -> Decision:
        user_id, index = played.person.enrolment.user_id, point.decision_index
        if isinstance(played.person, Brusher):
            return self.client.decision_point(user_id, index, point.decision_time)
        return self.client.actions(user_id, index, point.decision_time, played.surveys[index])

    def _answers(self, played: Played, index: int) -> Survey | Brushing:
        """Return the data that the back end has of a point after its decision."""
        if isinstance(played.person, Person):
            return played.surveys[index]
        played.brushing[index] = played.person.brushing(index, played.actions)
        return played.brushing[index]

    def _wait_for_record(self, played: Played, point: Point) -> None:
        job = self._wait_for_job(played.jobs[point.decision_index], self.client.patience)
        self.ledger.equal("what was recorded of a point is stored before the next", job.state, "done")

    def _perhaps_ask_again(self, played: Played, point: Point) -> None:
        if self._chance[played.person.enrolment.user_id].random() < REPEATED / 2:
            first = played.decisions[point.decision_index]
            self.ledger.equal("a repeat of /actions gets the same decision", self._ask(played, point), first)

    def _end(self, played: Played, point: Point) -> None:
        user_id, index = played.person.enrolment.user_id, point.decision_index
        ended = self.client.end_decision_window(user_id, index)
        played.jobs[index] = ended.job_id
        self.ledger.equal("the window ended is the one named", ended.decision_index, index)
        self.ledger.check(
            "each window has a job of its own", self._jobs.new(ended.job_id), f"job {ended.job_id}"
        )
        if self._chance[user_id].random() < REPEATED:
            again = self.client.end_decision_window(user_id, index)
            self.ledger.equal("a repeat of /end_decision_window gets the same job", again, ended)
        self._perhaps_ask_again(played, point)


def is_settled(report: StudyReport, expected: Expected) -> bool:
    """Return whether every window is ingested, no job waits or runs, and the active policy has every row."""
    busy = report.jobs.get("queued", 0) + report.jobs.get("running", 0)
    ingested = report.windows.get("ingested", 0) == expected.ingested
    return ingested and not busy and report.policy_rows == report.rows == expected.rows


def check_report(ledger: Ledger, report: StudyReport, expected: Expected) -> None:
    """Check the counts of GET /study against those of the rehearsal."""
    windows = report.windows
    ledger.equal("participants", report.participants, expected.participants)
    ledger.equal("decisions", report.decisions, expected.decisions)
    ledger.equal("windows ingested", windows.get("ingested", 0), expected.ingested)
    ledger.equal("windows waiting or failed", windows.get("ended", 0) + windows.get("failed", 0), 0)
    ledger.equal("decision points missed", windows.get("missed", 0), expected.missed)
    ledger.equal("discrepancies", report.discrepancies, expected.discrepancies)
    ledger.equal("fallbacks", {k: n for k, n in report.fallbacks.items() if n}, expected.fallbacks)
    ledger.equal("learning rows", report.rows, expected.rows)
    ledger.equal("rows in the policy that serves", report.policy_rows, expected.rows)
    ledger.equal("jobs queued or running", report.jobs.get("queued", 0) + report.jobs.get("running", 0), 0)
    ledger.equal("jobs failed", report.jobs.get("failed", 0), 0)
