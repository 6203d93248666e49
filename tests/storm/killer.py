"""The killer: it sends SIGKILL to one process after the other and times how long each takes to come back."""

import contextlib
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
LONGEST_GRACE = 2.0  # an idle process is killed after this time all the same, since the work may wait for it
OF_THE_DATABASE = ("PostgreSQL", "PostgreSQL's child")


class Target(NamedTuple):
    """A kind of process.

    running: the ids of those that run now. works: whether they answer. is_busy: whether they are doing
    something that a kill would interrupt.
    """

    kind: str
    running: Callable[[], list[int]]
    works: Callable[[], bool]
    is_busy: Callable[[], bool] = lambda: True


@dataclass
class Kill:
    """A SIGKILL, with the seconds until as many processes ran as before and answered (None: never)."""

    kind: str
    seconds: float | None = None


def targets(deployment: Deployment) -> list[Target]:
    """Return every kind of process that the trial depends on."""
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
    """The killer of each target `rounds` times, in random order, about every `pause` seconds.

    Work that is faster must wait for it (`keep_up`), or most kills would come after the work's end.
    """

    targets: list[Target]
    rounds: int
    pause: float
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)
    _turns: int = 0
    _over: Event = field(default_factory=Event)

    def during(self, work: Callable[[], object]) -> None:
        """Kill while `work` runs, and return when all kills are made and every killed process is back."""
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(self._kill_all)
            try:
                work()
            except BaseException:
                self._over.set()
                raise
            finally:
                killing.result()

    def keep_up(self, share: float) -> None:
        """Wait until `share` of the kills were tried: the share of the work that is done."""
        while self._turns < share * self.rounds * len(self.targets) and not self._over.wait(0.05):
            pass

    def _kill_all(self) -> None:
        returns: list[Future[None]] = []
        try:
            with ThreadPoolExecutor(len(self.targets)) as watchers:
                for target in self._turn():
                    returns += self._strike(target, watchers)
                    self._turns += 1
        finally:
            self._over.set()  # so that nobody waits for kills that will not come
        for watcher in returns:
            watcher.result()

    def _turn(self) -> Iterator[Target]:
        """Yield the targets in random order, round after round, with pauses between them."""
        for _ in range(self.rounds):
            for target in self.chance.sample(self.targets, len(self.targets)):
                if self._over.wait(self.pause * self.chance.uniform(0.5, 1.5)):
                    return
                yield target

    def _strike(self, target: Target, watchers: ThreadPoolExecutor) -> list["Future[None]"]:
        """Kill a process of this kind; return the watcher of its return, or none where no process ran.

        A process that was killed with its parent, or that ended by itself, must be back first. An idle one is
        spared for a moment, in which it may begin something.
        """
        began = time.monotonic()
        while (waited := time.monotonic() - began) < LONGEST_ABSENCE:
            before = target.running()
            is_time = waited > LONGEST_GRACE or target.is_busy()
            if before and is_time:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(self.chance.choice(before))
                    lived = _lives(process)
                    process.kill()
                    if lived:
                        kill = Kill(target.kind)
                        self.kills.append(kill)
                        return [watchers.submit(_watch, kill, target, before, time.monotonic())]
            if self._over.wait(0.05):
                break
        return []


def _watch(kill: Kill, target: Target, before: list[int], since: float) -> None:
    """Note the seconds until as many processes run as before, among them a new one, and they answer."""
    while kill.seconds is None:
        now = target.running()
        if len(now) >= min(len(before), 2) and set(now) - set(before) and target.works():
            kill.seconds = time.monotonic() - since
        elif time.monotonic() - since > LONGEST_ABSENCE:
            return
        else:
            time.sleep(0.05)
