"""Walks everybody through their decision points, checks every answer, and waits until the service is done."""

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

REPEATED = 0.05  # of the calls are made twice: at once, or after the window's end
ANSWERED = "every call is answered as the contract says"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Expected:
    """What GET /study must report once everything is done."""

    participants: int
    decisions: int
    ingested: int
    missed: int
    discrepancies: int
    rows: int
    fallbacks: dict[str, int]


class Rehearsal:
    """One play of `people` against the service behind `client`, whose data `backend` serves."""

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
        """Register everybody. Raises Unreachable, as do the other calls."""
        with self._pool() as pool:
            list(pool.map(lambda played: self._guarded(self._register, played), self.played))

    def walk(self, step: Callable[[int], None]) -> None:
        """Everybody meets their next point, then all these windows end; `step(n)` after each such round.

        What is recorded of a point is in the next state, so it is waited for, as the hours between two points
        do it."""
        rounds = max(len(played.person.points) for played in self.played)
        started = time.monotonic()
        with self._pool() as pool:
            for number in range(rounds):
                self._each(pool, number, self._decide)
                self._each(pool, number, self._end)
                if isinstance(self.played[0].person, Brusher):
                    self._each(pool, number, self._wait_for_record)
                step(sum(number < len(played.person.points) for played in self.played))
        self.walked_seconds = time.monotonic() - started

    def decisions(self) -> list[Decision]:
        """Every decision, each once."""
        return [decision for played in self.played for decision in played.decisions.values()]

    def expected(self) -> Expected:
        """What the service must have stored by now."""
        decisions = self.decisions()
        return Expected(
            participants=len(self.played),
            decisions=len(decisions),
            ingested=sum(len(played.jobs) for played in self.played),
            missed=sum(max(p.decisions) - len(p.decisions) for p in self.played if p.decisions),
            discrepancies=sum(_unlike_parity(played) for played in self.played),
            rows=sum(played.rows() for played in self.played),
            fallbacks=dict(Counter(decision.fallback_level for decision in decisions)),
        )

    def settle(self, patience: float) -> StudyReport:
        """Poll GET /study until all is ingested and learnt, or nothing has moved for `patience` seconds."""
        started = moved = time.monotonic()
        report, expected = self.client.study(), self.expected()
        while not is_settled(report, expected) and time.monotonic() - moved < patience:
            time.sleep(POLL_SECONDS)
            last, report = report, self.client.study()
            moved = moved if report == last else time.monotonic()
        self.settled_seconds = time.monotonic() - started
        return report

    def not_ingested(self) -> list[str]:
        """The windows whose ingest is not done, each with what its job says."""
        return [
            f"{played.person.enrolment.user_id} window {index}: job {job.job_id} {job.state}, {job.reason}"
            for played in self.played
            for index, job in ((index, self.client.job(number)) for index, number in played.jobs.items())
            if job.state != "done"
        ]

    def refit(self, patience: float) -> None:
        """Ask for a refit, as a back end may, and check that its job is done in time."""
        job = self._over(self.client.update_parameters().job_id, patience)
        self.ledger.equal("a refit on request is done", job.state, "done")

    def _over(self, job_id: int, patience: float) -> Job:
        """The job once it is done or failed, or as it is after `patience` seconds."""
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
            except BaseException:  # it is over: the other threads need not bear an outage to its end
                self.client.patience = 0.0
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _each(self, pool: ThreadPoolExecutor, number: int, call: Callable[[Played, Point], None]) -> None:
        there = [p for p in self.played if p.going and number < len(p.person.points)]
        list(pool.map(lambda p: self._guarded(call, p, p.person.points[number]), there))

    def _guarded(self, call: Callable[..., None], played: Played, *point: Point) -> None:
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
        """What the back end has of a point that is decided."""
        if isinstance(played.person, Person):
            return played.surveys[index]
        played.brushing[index] = played.person.brushing(index, played.actions)
        return played.brushing[index]

    def _wait_for_record(self, played: Played, point: Point) -> None:
        job = self._over(played.jobs[point.decision_index], self.client.patience)
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
    """Whether every window is ingested, no job waits or runs, and the policy that serves has every row."""
    busy = report.jobs.get("queued", 0) + report.jobs.get("running", 0)
    ingested = report.windows.get("ingested", 0) == expected.ingested
    return ingested and not busy and report.policy_rows == report.rows == expected.rows


def check_report(ledger: Ledger, report: StudyReport, expected: Expected) -> None:
    """Compare the counts of GET /study with those of the rehearsal."""
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


def _unlike_parity(played: Played) -> int:
    """How many decided points have a time of day that their index denies (odd = morning)."""
    points = (p for p in played.person.points if p.decision_index in played.decisions)
    return sum(point.evening != (point.decision_index % 2 == 0) for point in points)
