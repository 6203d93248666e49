"""A storm of duplicates: every call is sent several times at once and again later, and some are abandoned.

    python -m tests.storm.duplicates --calls 100000

plays it against a stack of its own and exits with 1 where anything was decided twice, answered differently or
lost. Each participant passes their points in order; the calls about a point are sent at once.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from local.embedded import Embedded
from local.ports import free_port
from local.stack import Stack, environment
from rehearsal.backend import Backend, EmaServer
from tests.storm.duplicate_calls import POINTS, TRIES, Call, Person, Wire
from tests.support import remote

CALLS_OF_A_POINT = 16  # on average
LOST = 0.1  # share of the calls that may be repeated at any time and are abandoned before their answer
# Refusals that pass: the service is away, or the participant is not enrolled or the point not decided yet.
PASSING = {(503, 907), (404, 203), (404, 300), (409, 301), (409, 302)}


@dataclass
class Findings:
    """The counts of a storm: calls by status and error code, (0, 0) for abandoned ones, and its faults."""

    calls: int = 0
    abandoned: int = 0
    statuses: Counter[tuple[int, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Played:
    """A storm that is over: its number of points, its counts, and a sentence for each fault."""

    points: int
    findings: Findings
    wrong: list[str]
    seconds: float


class Storm:
    """About `calls` calls over `threads` threads; `step(n)` is called after every n calls.

    answers: the first answer to each subject. corrected: whether answers that differ were stored as a
    correction, by subject and survey answer.
    """

    def __init__(
        self, wire: Wire, calls: int, threads: int, seed: int, step: Callable[[int], object]
    ) -> None:
        self.participants = max(1, round(calls / (POINTS * CALLS_OF_A_POINT)))
        self.findings = Findings()
        self.answers: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.corrected: dict[tuple[tuple[str, str, int], bool], bool] = {}
        self._wire, self._threads, self._seed, self._step = wire, threads, seed, step
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send the calls of all participants, a few participants at a time."""
        with ThreadPoolExecutor(self._threads) as senders, ThreadPoolExecutor(self._threads // 4) as people:
            for person in [people.submit(self._play, senders, n) for n in range(self.participants)]:
                person.result()

    def _play(self, senders: ThreadPoolExecutor, number: int) -> None:
        """Send the bursts of participant `number`, each when the one before is answered."""
        chance = random.Random(f"{self._seed} {number}")
        person = Person(f"storm-{self._seed}-{number}", chance)
        for calls in person.bursts():
            list(senders.map(self._settle, calls, [chance.random() for _ in calls]))

    def _settle(self, call: Call, luck: float) -> None:
        """Repeat a call until it is answered, and compare the answer with those of its kind before."""
        if call.may_be_lost and luck < LOST:
            self._wire.abandon(call, luck / 5)
            self._count((0, 0))
        for _ in range(TRIES):
            status, text = self._wire.send(call)
            code = 0 if status == call.success else json.loads(text)["error_code"]
            self._count((status, code))
            if (status, code) not in PASSING:
                break
            time.sleep(0.01)
        if status == call.success:
            self._compare(call, json.loads(text))
        else:
            self._note(f"{call.about}: {status} {text}")

    def _count(self, outcome: tuple[int, int]) -> None:
        with self._lock:
            self.findings.calls += 1
            self.findings.abandoned += outcome == (0, 0)
            self.findings.statuses[outcome] += 1
            self._step(1)

    def _compare(self, call: Call, answer: dict[str, Any]) -> None:
        """Compare an answer with the first one about the same subject.

        All calls with the same survey answers must hear the same: either that these are a correction, or that
        the decision was made with them.
        """
        is_correction = answer.pop("correction_stored", False)
        variant = call.about, call.body.get("app_use_flag", False)
        with self._lock:
            first = self.answers.setdefault(call.about, answer)
            was_correction = self.corrected.setdefault(variant, is_correction)
        if (answer, is_correction) != (first, was_correction):
            self._note(f"{variant}: {answer}, {is_correction} after {first}, {was_correction}")

    def _note(self, fault: str) -> None:
        with self._lock:
            self.findings.wrong.append(fault)


def check(storm: Storm, get: Callable[[str], Any]) -> list[str]:
    """Return a sentence for each fault of a storm that is over. `get` reads a path of the service as JSON."""
    wrong = list(storm.findings.wrong)
    study, points = get("/study"), storm.participants * POINTS
    counts = {
        "participants": (study["participants"], storm.participants),
        "decisions": (study["decisions"], points),
        "windows": (sum(study["windows"].values()), points),
        "missed": (study["windows"]["missed"], 0),
        "discrepancies": (study["discrepancies"], 0),
    }
    wrong += [
        f"{name}: {number}, not {expected}"
        for name, (number, expected) in counts.items()
        if number != expected
    ]
    answers, jobs = _answers(storm, "/actions"), _answers(storm, "/end_decision_window")
    decisions = {decision["rid"]: decision for decision in _pages(get, "/decisions", "rid")}
    wrong += [
        f"no decision {answer['rid']} is stored" for answer in answers if answer["rid"] not in decisions
    ]
    corrections = sum(storm.corrected.values())
    acts = sum(act["act"] == "correct" for act in _pages(get, "/audit", "seq"))
    if acts != corrections:
        wrong.append(f"{acts} corrections are in the audit, not {corrections}")
    for rid, decision in decisions.items():
        if decision["action"] != int(decision["seed"] / 2**53 < decision["act_prob"]):
            wrong.append(f"decision {rid} was drawn wrongly")
    if (
        len({(decision["participant_id"], decision["decision_index"]) for decision in decisions.values()})
        != points
    ):
        wrong.append("the stored decisions are not one for each decision point")
    if len({job["job_id"] for job in jobs}) != points:
        wrong.append("the windows have not one job each")
    return wrong


def _answers(storm: Storm, path: str) -> list[dict[str, Any]]:
    return [answer for about, answer in storm.answers.items() if about[0] == path]


def _pages(get: Callable[[str], Any], path: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield all items of a paged list; `name` is the number that a page goes on after."""
    last = 0
    while page := get(f"{path}?limit=1000&after={last}")[path.strip("/")]:
        yield from page
        last = page[-1][name]


@contextmanager
def prepared_storm(
    env: dict[str, str], url: str, calls: int, threads: int, seed: int, step: Callable[[int], object]
) -> Iterator[tuple[Storm, remote.Remote]]:
    """Yield a storm that has not begun, in a study of its own at the API under `url`, and its admin."""
    # the back end has no participants and says so at once, so the windows take no time
    with EmaServer(Backend(token=None), port=0) as app:
        ema_url = f"http://127.0.0.1:{app.server_port}/ema_study"
        client = remote.begin(env, url, f"schedule.study_length={POINTS}", ema_url=ema_url, role="admin")
        yield Storm(Wire(url, client.token), calls, threads, seed, step), client


def play(
    env: dict[str, str], url: str, calls: int, threads: int, seed: int, step: Callable[[int], object]
) -> tuple[Storm, list[str]]:
    """Play a whole storm while the service is up; return it and a sentence for each fault."""
    with prepared_storm(env, url, calls, threads, seed, step) as (storm, client):
        storm.run()
        sent_away = [
            f"{outcome}: {number} calls"
            for outcome, number in storm.findings.statuses.items()
            if outcome[0] == 503
        ]
        return storm, sent_away + check(storm, client.get)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Run a stack during the `with` block."""
    with tempfile.TemporaryDirectory(prefix="kairos-storm-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder) / "state") as servers:
            servers.postgres.create_database("storm")
            urls = servers.database_url("storm"), servers.broker_url()
            stack = Stack(servers.state, servers.supervisor, environment(servers.state, *urls, free_port()))
            stack.start()
            yield stack


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the storm's size."""
    parser.add_argument("--calls", type=int, default=100_000, help="about how many calls are made")
    parser.add_argument("--threads", type=int, default=64)


def main() -> int:
    """Play the storm that the command line describes; return 1 where something was wrong, else 0."""
    parser = argparse.ArgumentParser(description="A storm of duplicates against a stack of its own.")
    arguments(parser)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return 1 if play_and_print(options, options.seed).wrong else 0


def play_and_print(options: argparse.Namespace, seed: int) -> Played:
    """Play a storm of this size, print its counts and faults, and return them."""
    with running_stack() as stack, tqdm(total=options.calls, unit="call", smoothing=0.1) as bar:
        began = time.monotonic()
        storm, wrong = play(stack.env, stack.api_url, options.calls, options.threads, seed, bar.update)
        played = Played(storm.participants * POINTS, storm.findings, wrong, time.monotonic() - began)
    findings = played.findings
    print(f"{findings.calls} calls in {played.seconds:.0f} s for {played.points} decision points")
    print(f"{findings.abandoned} of them given up before their answer and repeated")
    for (status, code), number in sorted(findings.statuses.items()):
        if status:
            print(f"  {status}{f' ({code})' if code else ''}: {number}")
    for sentence in wrong[:20]:
        print(f"WRONG: {sentence}", file=sys.stderr)
    right = "every call of a decision point got its one decision"
    print(f"{len(wrong)} things are wrong" if wrong else right)
    return played


if __name__ == "__main__":
    sys.exit(main())
