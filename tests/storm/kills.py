"""A storm of kills: a trial whose service is killed process by process, on stacks of its own.

    python -m tests.storm.kills --participants 40 --points 30 --kills 6

plays a study undisturbed, the same study in lockstep under fire, and another one free-running under fire
beside a task that kills its worker each time. It exits with 1 where anything was lost, doubled or different,
and where it was no storm: a kind of process was not killed as often as planned, or the back end did not fail
its share of calls.
"""

import argparse
import io
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


@dataclass(frozen=True)
class Plan:
    """The sizes of a storm.

    kills: of each kind of process in each of both modes. pauses: seconds between kills in lockstep and free.
    """

    participants: int
    points: int
    kills: int
    pauses: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """The result of a play under fire: its faults, the number of values compared, and its counts."""

    mode: str
    wrong: list[str]
    compared: int
    decisions: int
    kinds: list[str]  # of processes that were to be killed
    kills: list[Kill]
    call_results: Counter[str]  # by status or network error, one for each try of a call
    back_end_calls: int
    failed: Counter[str]  # calls that the back end failed on purpose, by kind
    late: int  # calls that the back end answered late on purpose
    tries: dict[str, tuple[int, int]]  # by kind of job: the number of jobs, and of claims
    put_back: int  # claims whose worker had died
    seconds: float

    @property
    def repeated(self) -> Counter[str]:
        """The results of the tries that had to be repeated."""
        return Counter(
            {result: n for result, n in self.call_results.items() if not result.startswith("HTTP 2")}
        )


@dataclass(frozen=True)
class Storm:
    """The results of all plays of a storm."""

    plan: Plan
    outcomes: list[Outcome]
    poisoning: Poisoning
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """A sentence for each fault."""
        return [
            *(
                f"{outcome.mode}: {sentence}"
                for outcome in self.outcomes
                for sentence in [*outcome.wrong, *premise.wrong(outcome, self.plan)]
            ),
            *premise.spared(self.outcomes, self.plan),
            *poison.wrong(self.poisoning, self.crashes),
        ]

    @property
    def crashes(self) -> int:
        """The number of the database's deaths while the poisoned task was there."""
        return sum(kill.kind in OF_THE_DATABASE for kill in self.outcomes[-1].kills)


def make_seed(servers: Embedded, migrated: str, plan: Plan) -> Seed:
    """Make the database that a storm of this plan begins with, as a copy of the database `migrated`."""
    people = miwaves_people.people(plan.participants, plan.points, plan.seed)
    return sow(servers, migrated, people, plan.points)


def play_all(servers: Embedded, seed: Seed, folder: Path, plan: Plan, step: Step) -> Storm:
    """Play all three plays, with the stacks' state in `folder`; `step(n)` is called after n decision points.

    1. In lockstep, undisturbed. 2. The same under fire, compared with the first. 3. Free-running under fire,
    beside the poisoned task, compared with a serial fit.
    """
    began = time.monotonic()

    def undisturbed() -> dict[str, Any]:
        with play.playing(deployment, seed, LOCKSTEP, 0.0, 0) as played:
            play.in_lockstep(played, step)
        return stored.comparable(deployment.database_url, LOCKSTEP)

    with deployed(servers, seed, folder / "undisturbed", 2) as deployment:
        expected = deployment.tend(undisturbed)
    with deployed(servers, seed, folder / "disturbed", 3) as deployment:
        first = deployment.tend(lambda: _lockstep(deployment, seed, plan, expected, step))
        second, poisoning = deployment.tend(lambda: _free(deployment, seed, plan, step))
    return Storm(plan, [first, second], poisoning, time.monotonic() - began)


def _lockstep(
    deployment: Deployment, seed: Seed, plan: Plan, expected: dict[str, Any], step: Step
) -> Outcome:
    """Play the lockstep study under fire and compare its data with the `expected` ones."""

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
    """Play the free-running study under fire beside the poisoned task, and compare its policy."""

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
    """Return `step` with a wait for the killer, so that the kills spread over the whole play."""
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
    """Walk while the killer kills, wait for the service to finish, and check and compare the tables."""
    began, wrong, compared = time.monotonic(), [], 0
    try:
        killer.during(walk)
        play.settle(played)
    except NotQuiet as late:
        wrong.append(f"it did not come to an end: {late}")
    url = deployment.database_url
    wrong += afterwards.wrong(url, study, played)
    if not wrong:
        values, expected = compare()
        compared = comparison.numbers(expected)
        wrong += comparison.differences(values, expected)
    job_ids = {job["id"] for job in stored.read(url, stored.JOBS, study)}
    assert isinstance(played.client, CountingClient)
    assert isinstance(played.backend, FaultyBackend)
    return Outcome(
        study,
        wrong,
        compared,
        len(played.decisions()),
        [target.kind for target in killer.targets],
        killer.kills,
        played.client.results,
        played.backend.calls,
        played.backend.failed,
        played.backend.late,
        {row["kind"]: (row["jobs"], row["claims"]) for row in stored.read(url, stored.CLAIMS, study)},
        sum(job_id in job_ids for job_id in deployment.jobs_put_back()),
        time.monotonic() - began,
    )


@contextmanager
def servers_in_a_folder(keep: bool) -> Iterator[tuple[Embedded, str, Path]]:
    """Yield servers, a migrated database's name and a folder, which stays there where `keep` is True."""
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
    """Add the options for the storm's size."""
    parser.add_argument("--participants", type=int, default=40, help="in each study under fire")
    parser.add_argument("--points", type=int, default=30, help="decision points of each participant")
    parser.add_argument("--kills", type=int, default=6, help="of each kind of process, in each of both modes")
    parser.add_argument("--keep-logs", action="store_true", help="leave logs and data in /tmp")


def main(words: Sequence[str] | None = None) -> int:
    """Play the storm that `words`, or the command line, describe; return 1 where it found a fault."""
    parser = argparse.ArgumentParser(description="A trial whose service is killed piece by piece.")
    arguments(parser)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    return 1 if play_and_print(options, options.seed).wrong else 0


def play_and_print(options: argparse.Namespace, number: int) -> Storm:
    """Play a storm of this size with seed `number`, print its results and faults, and return it."""
    plan = Plan(options.participants, options.points, options.kills, (4.0, 1.0), number)
    bar = tqdm(total=3 * plan.participants * plan.points, unit="point", smoothing=0.1)
    with servers_in_a_folder(options.keep_logs) as (servers, migrated, folder), bar:
        with redirect_stderr(io.StringIO()):  # the service in this process logs every enrolment
            seed = make_seed(servers, migrated, plan)
        storm = play_all(servers, seed, folder, plan, bar.update)
    print("\n".join(kills_report.details(storm)))
    for sentence in storm.wrong[:20]:
        print(f"WRONG: {sentence}", file=sys.stderr)
    return storm


if __name__ == "__main__":
    sys.exit(main())
