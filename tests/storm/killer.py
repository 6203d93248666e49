"""SIGKILL for one process after the other, and how long it takes until each is back."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]  # it publishes no types

from local.stack import answers, worker_answers
from tests.storm import stored
from tests.storm.trial import Deployment

LONGEST_ABSENCE = 180.0
LONGEST_GRACE = 2.0  # the work may wait for this kill
OF_THE_DATABASE = ("PostgreSQL", "PostgreSQL's child")


class Target(NamedTuple):
    """A kind of process: which of them run now, whether what they do is being done, and whether they are in
    the midst of something that a kill would interrupt."""

    kind: str
    running: Callable[[], list[int]]
    works: Callable[[], bool]
    is_busy: Callable[[], bool] = lambda: True


@dataclass
class Kill:
    """One SIGKILL; `seconds` until as many processes run as before, and answer (None: never seen)."""

    kind: str
    seconds: float | None = None


def targets(deployment: Deployment) -> list[Target]:
    """Every kind of process that the trial stands on."""
    stack, servers = deployment.stack, deployment.servers
    api = lambda: answers(f"{stack.api_url}/running")  # noqa: E731
    worker = lambda: worker_answers(stack.env["BROKER_URL"])  # noqa: E731
    has_a_job = lambda: stored.has_a_job(deployment.database_url)  # noqa: E731
    return [
        Target("API master", lambda: [stack.pids["api"]], api),
        Target("API process", lambda: _children(stack.pids["api"]), api),
        Target("worker", lambda: [stack.pids["worker"]], worker, has_a_job),
        Target("worker's child", lambda: _children(stack.pids["worker"]), lambda: True, has_a_job),
        Target("beat", lambda: [stack.pids["beat"]], lambda: True),
        Target("Valkey", lambda: [servers.pids["broker"]], servers.valkey.ready),
        Target("PostgreSQL", lambda: [servers.pids["db"]], servers.postgres.ready),
        Target("PostgreSQL's child", lambda: _children(servers.pids["db"]), servers.postgres.ready),
    ]


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children() if _lives(child)]
    except psutil.NoSuchProcess:
        return []


def _lives(process: Any) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


@dataclass
class Killer:
    """Kills each of the targets `rounds` times, in random order, about every `pause` seconds.

    A walk that is faster than that must wait for it (`keep_up`), or most kills would come after its end.
    """

    targets: list[Target]
    rounds: int
    pause: float
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)
    _turns: int = 0
    _over: Event = field(default_factory=Event)

    def during(self, work: Callable[[], object]) -> None:
        """Kill while `work` is done, and return when all kills are made and everything killed is back."""
        with ThreadPoolExecutor(1) as pool:
            raging = pool.submit(self._rage)
            try:
                work()
            except BaseException:
                self._over.set()
                raise
            finally:
                raging.result()

    def keep_up(self, share: float) -> None:
        """Wait until this share of the kills was tried, as much as the work has of its way behind it."""
        while self._turns < share * self.rounds * len(self.targets) and not self._over.wait(0.05):
            pass

    def _rage(self) -> None:
        returns: list[Future[None]] = []
        try:
            with ThreadPoolExecutor(len(self.targets)) as watchers:
                for target in self._turn():
                    returns += self._strike(target, watchers)
                    self._turns += 1
        finally:
            self._over.set()  # nobody waits for kills that will not come
        for one in returns:
            one.result()

    def _turn(self) -> Iterator[Target]:
        for _ in range(self.rounds):
            for target in self.chance.sample(self.targets, len(self.targets)):
                if self._over.wait(self.pause * self.chance.uniform(0.5, 1.5)):
                    return
                yield target

    def _strike(self, target: Target, watchers: ThreadPoolExecutor) -> list["Future[None]"]:
        """One that was killed with its parent, or that ends by itself, must be back first. One that is idle
        is let off for a moment, in which it may begin something."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < LONGEST_ABSENCE:
            before = target.running()
            is_time = waited > LONGEST_GRACE or target.is_busy()
            if before and is_time and _end(self.chance.choice(before)):
                kill = Kill(target.kind)
                self.kills.append(kill)
                return [watchers.submit(_wait, kill, target, before, time.monotonic())]
            if self._over.wait(0.05):
                break
        return []


def _end(pid: int) -> bool:
    """Whether there was a process to kill."""
    try:
        process = psutil.Process(pid)
        lived = _lives(process)
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return lived


def _wait(kill: Kill, target: Target, before: list[int], since: float) -> None:
    """Note when there are as many as before, not only the same ones, and they answer."""
    while kill.seconds is None:
        now = target.running()
        if len(now) >= min(len(before), 2) and set(now) - set(before) and target.works():
            kill.seconds = time.monotonic() - since
        elif time.monotonic() - since > LONGEST_ABSENCE:
            return
        else:
            time.sleep(0.05)
