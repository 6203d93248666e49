"""A trial whose service is killed piece by piece, on stacks of its own.

    python -m tests.storm.kills --participants 40 --points 30 --kills 6

plays one study undisturbed, the same study in lockstep under fire, and another one free-running under fire
beside a task that kills its worker each time. It exits with 1 where anything was lost, doubled or different,
and where it was no storm: a kind of process was not killed so often, or the back end did not fail its share.
"""

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from local.embedded import Embedded
from local.ports import free_port
from local.process import Process
from local.stack import MIGRATE, environment, python
from local.state import CLONE
from rehearsal import miwaves_people
from rehearsal.play import Rehearsal
from tests.storm import afterwards, comparison, kills_report, play, poison, premise, stored
from tests.storm.killer import OF_THE_DATABASE, Kill, Killer, targets
from tests.storm.play import DISTURBED, CountingClient, FaultyBackend, NotQuiet
from tests.storm.poison import Poisoning
from tests.storm.trial import FREE, LOCKSTEP, Deployment, Seed, deployed, sow

Step = Callable[[int], object]
PUT_BACK = '"event":"claims put back"'


@dataclass(frozen=True)
class Plan:
    """Sizes. kills: of each kind of process in each of both modes, about every `pauses` seconds."""

    participants: int
    points: int
    kills: int
    pauses: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One play under fire: what is wrong, how many values were compared, what it met on the way."""

    mode: str
    wrong: list[str]
    compared: int
    decisions: int
    kinds: list[str]  # of processes that were to be killed
    kills: list[Kill]
    met: Counter[str]
    asked: int
    failed: Counter[str]
    late: int
    tries: dict[str, tuple[int, int]]  # by kind of job: how many there were, and how often one was claimed
    put_back: int  # claims whose worker had died
    seconds: float

    @property
    def repeated(self) -> Counter[str]:
        """What the calls met that had to be repeated."""
        return Counter({told: count for told, count in self.met.items() if not told.startswith("HTTP 2")})


@dataclass(frozen=True)
class Storm:
    """Everything that was played."""

    plan: Plan
    outcomes: list[Outcome]
    poisoning: Poisoning
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """What is wrong, one sentence each."""
        return [
            *(
                f"{one.mode}: {sentence}"
                for one in self.outcomes
                for sentence in [*one.wrong, *premise.wrong(one, self.plan)]
            ),
            *premise.spared(self.outcomes, self.plan),
            *poison.wrong(self.poisoning, self.crashes),
        ]

    @property
    def crashes(self) -> int:
        """How often the database died while the poisoned task was there."""
        return sum(kill.kind in OF_THE_DATABASE for kill in self.outcomes[-1].kills)


def sown(servers: Embedded, migrated: str, plan: Plan) -> Seed:
    """The seed that a storm of this plan begins with."""
    people = miwaves_people.people(plan.participants, plan.points, plan.seed)
    return sow(servers, migrated, people, plan.points)


def rage(servers: Embedded, seed: Seed, folder: Path, plan: Plan, step: Step) -> Storm:
    """All of it, with the stacks' state in `folder`; `step(n)` is told of every n decision points."""
    began = time.monotonic()
    with deployed(servers, seed, folder / "undisturbed", 2) as deployment:
        expected = deployment.tend(lambda: _undisturbed(deployment, seed, step))
    with deployed(servers, seed, folder / "disturbed", 3) as deployment:
        first = deployment.tend(lambda: _lockstep(deployment, seed, plan, expected, step))
        second, poisoning = deployment.tend(lambda: _free(deployment, seed, plan, step))
    return Storm(plan, [first, second], poisoning, time.monotonic() - began)


def _undisturbed(deployment: Deployment, seed: Seed, step: Step) -> dict[str, Any]:
    with play.playing(deployment, seed, LOCKSTEP, 0.0, 0) as played:
        play.in_lockstep(played, step)
    return stored.comparable(deployment.database_url, LOCKSTEP)


def _lockstep(
    deployment: Deployment, seed: Seed, plan: Plan, expected: dict[str, Any], step: Step
) -> Outcome:
    def compare() -> tuple[Any, Any]:
        return stored.comparable(deployment.database_url, LOCKSTEP), expected

    killer = _killer(deployment, plan, 0)
    with play.playing(deployment, seed, LOCKSTEP, DISTURBED, plan.seed) as played:
        return _under_fire(
            deployment,
            LOCKSTEP,
            killer,
            played,
            lambda: play.in_lockstep(played, _paced(killer, plan, step)),
            compare,
        )


def _free(deployment: Deployment, seed: Seed, plan: Plan, step: Step) -> tuple[Outcome, Poisoning]:
    def compare() -> tuple[Any, Any]:
        url = deployment.database_url
        return comparison.serving(url, FREE), comparison.refitted(url, FREE)

    killer = _killer(deployment, plan, 1)
    with (
        play.playing(deployment, seed, FREE, DISTURBED, plan.seed + 1) as played,
        ThreadPoolExecutor(1) as pool,
    ):
        taking = pool.submit(poison.take, deployment, seed)
        outcome = _under_fire(
            deployment,
            FREE,
            killer,
            played,
            lambda: played.walk(_paced(killer, plan, step)),
            compare,
        )
        return outcome, poison.beside(deployment, taking.result())


def _killer(deployment: Deployment, plan: Plan, mode: int) -> Killer:
    chance = random.Random(f"{plan.seed} {mode}")
    return Killer(targets(deployment), plan.kills, plan.pauses[mode], chance)


def _paced(killer: Killer, plan: Plan, step: Step) -> Callable[[int], None]:
    """`step`, and no point before the share of kills that belongs to those before it."""
    played = 0

    def paced(points: int) -> None:
        nonlocal played
        step(points)
        played += points
        killer.keep_up(played / (plan.participants * plan.points))

    return paced


def _under_fire(
    deployment: Deployment,
    study: str,
    killer: Killer,
    played: Rehearsal,
    walk: Callable[[], None],
    compare: Callable[[], tuple[Any, Any]],
) -> Outcome:
    began, wrong, compared = time.monotonic(), [], 0
    try:
        killer.during(walk)
        play.settle(played)
    except NotQuiet as late:
        wrong.append(f"it did not come to an end: {late}")
    wrong += afterwards.wrong(deployment.database_url, study, played)
    if not wrong:
        one, other = compare()
        compared = comparison.numbers(other)
        wrong += comparison.differences(one, other)
    assert isinstance(played.client, CountingClient)
    assert isinstance(played.backend, FaultyBackend)
    return Outcome(
        study,
        wrong,
        compared,
        len(played.decisions()),
        [target.kind for target in killer.targets],
        killer.kills,
        played.client.met,
        played.backend.calls,
        played.backend.failed,
        played.backend.late,
        _tries(deployment, study),
        _put_back(deployment, study),
        time.monotonic() - began,
    )


def _tries(deployment: Deployment, study: str) -> dict[str, tuple[int, int]]:
    jobs = stored.read(deployment.database_url, stored.JOBS, study)
    kinds = sorted({job["kind"] for job in jobs})
    attempts = {kind: [job["attempts"] for job in jobs if job["kind"] == kind] for kind in kinds}
    return {kind: (len(own), sum(own)) for kind, own in attempts.items()}


def _put_back(deployment: Deployment, study: str) -> int:
    """How often a job of the study was taken from a worker that had died, as the worker's log has it."""
    own = {job["id"] for job in stored.read(deployment.database_url, stored.JOBS, study)}
    lines = deployment.log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [json.loads(line)["jobs"] for line in lines if PUT_BACK in line and line.endswith("}")]
    return sum(job_id in own for jobs in told for job_id in jobs)


@contextmanager
def ground(keep: bool) -> Iterator[tuple[Embedded, str, Path]]:
    """Servers, a migrated database and a folder, while the block lasts; `keep` leaves the folder there."""
    folder = Path(tempfile.mkdtemp(prefix="kairos-faults-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with Embedded(folder / "state") as servers:
            servers.postgres.create_database("migrated")
            url = servers.database_url("migrated")
            env = environment(servers.state, url, servers.broker_url(), free_port())
            servers.supervisor.run(Process("migrate", python(MIGRATE), env, folder=CLONE))
            yield servers, "migrated", folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The choices of sizes."""
    parser.add_argument("--participants", type=int, default=40, help="in each study under fire")
    parser.add_argument("--points", type=int, default=30, help="decision points of each participant")
    parser.add_argument("--kills", type=int, default=6, help="of each kind of process, in each of both modes")
    parser.add_argument("--keep-logs", action="store_true", help="leave logs and data in /tmp")


def main(given: Sequence[str] | None = None) -> int:
    """The program; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description="A trial whose service is killed piece by piece.")
    arguments(parser)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(given)
    return 1 if play_and_tell(chosen, chosen.seed).wrong else 0


def play_and_tell(given: argparse.Namespace, number: int) -> Storm:
    """Play with these choices, and print what happened."""
    plan = Plan(given.participants, given.points, given.kills, (4.0, 1.0), number)
    bar = tqdm(total=3 * plan.participants * plan.points, unit="point", smoothing=0.1)
    with ground(given.keep_logs) as (servers, migrated, folder), bar:
        with redirect_stderr(io.StringIO()):  # the service in this process logs every enrolment
            seed = sown(servers, migrated, plan)
        storm = rage(servers, seed, folder, plan, bar.update)
    print("\n".join(kills_report.details(storm)))
    for sentence in storm.wrong[:20]:
        print(f"WRONG: {sentence}", file=sys.stderr)
    return storm


if __name__ == "__main__":
    sys.exit(main())
