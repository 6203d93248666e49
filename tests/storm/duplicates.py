"""A storm of duplicates: every call several times at once and again later, some of them given up half-way.

    python -m tests.storm.duplicates --calls 100000

plays it against a stack of its own and exits with 1 where anything was decided twice, answered differently or
lost. Each participant passes their points in order; what belongs to one point is sent at once.
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
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from local.embedded import Embedded
from local.ports import free_port
from local.stack import Stack, environment
from rehearsal.backend import Backend, EmaServer
from tests.storm.duplicate_calls import POINTS, Call, Person
from tests.support import remote

CALLS_OF_A_POINT = 16  # about
LOST = 0.1  # of the calls that may be repeated at any time are given up before their answer
TRIES = 200
SECONDS = 30.0
PASSING = {(503, 907), (404, 203), (404, 300), (409, 301), (409, 302)}  # away, or not enrolled or decided yet


@dataclass
class Findings:
    """What the storm saw."""

    calls: int = 0
    given_up: int = 0
    statuses: Counter[tuple[int, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Played:
    """A storm that is over: how many points it had, what it saw, and what is wrong."""

    points: int
    findings: Findings
    wrong: list[str]
    seconds: float


class Wire:
    """A connection for each thread, kept between calls."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._thread = threading.local()

    def send(self, call: Call) -> tuple[int, str]:
        """Status and body. A connection that the server has closed is replaced.

        A call that waits in vain is repeated too where it names its point: else it might mean the next one.
        """
        for _ in range(TRIES):
            connection = self._connection()
            try:
                self._begin(connection, call)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except (HTTPException, OSError) as error:
                connection.close()
                if isinstance(error, TimeoutError) and not call.may_be_lost:
                    raise
                time.sleep(0.05)
        raise TimeoutError(f"no answer to {call.path}")

    def give_up(self, call: Call, after: float) -> None:
        """Send a call and hang up before its answer."""
        connection = self._connection()
        try:
            self._begin(connection, call)
            time.sleep(after)
        except (HTTPException, OSError):
            pass
        connection.close()

    def _begin(self, connection: HTTPConnection, call: Call) -> None:
        key = {"Idempotency-Key": call.key} if call.key else {}
        connection.request("POST", call.path, json.dumps(call.body), self._headers | key)

    def _connection(self) -> HTTPConnection:
        if not hasattr(self._thread, "connection"):
            self._thread.connection = HTTPConnection(self._address, timeout=SECONDS)
        connection: HTTPConnection = self._thread.connection
        return connection


class Storm:
    """`calls` calls, about, over `threads` threads. `step(n)` is told of every n calls made."""

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
        """Let everybody live, a few at a time."""
        with ThreadPoolExecutor(self._threads) as senders, ThreadPoolExecutor(self._threads // 4) as lives:
            for life in [lives.submit(self._life, senders, n) for n in range(self.participants)]:
                life.result()

    def _life(self, senders: ThreadPoolExecutor, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        person = Person(f"storm-{self._seed}-{number}", chance)
        for calls in person.bursts():
            list(senders.map(self._settle, calls, [chance.random() for _ in calls]))

    def _settle(self, call: Call, luck: float) -> None:
        """Repeat a call until it is answered, and compare the answer with those of its kind before."""
        if call.may_be_lost and luck < LOST:
            self._wire.give_up(call, luck / 5)
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
            self.findings.given_up += outcome == (0, 0)
            self.findings.statuses[outcome] += 1
            self._step(1)

    def _compare(self, call: Call, told: dict[str, Any]) -> None:
        """With the first answer; of other survey answers, all must hear that they are a correction, or that
        the decision was made with them."""
        differs = told.pop("correction_stored", False)
        given = call.about, call.body.get("app_use_flag", False)
        with self._lock:
            first = self.answers.setdefault(call.about, told)
            differed = self.corrected.setdefault(given, differs)
        if (told, differs) != (first, differed):
            self._note(f"{given}: {told}, {differs} after {first}, {differed}")

    def _note(self, what: str) -> None:
        with self._lock:
            self.findings.wrong.append(what)


def check(storm: Storm, get: Callable[[str], Any]) -> list[str]:
    """What is wrong with a storm that is over. `get` reads a path of the service as JSON."""
    wrong = list(storm.findings.wrong)
    study, points = get("/study"), storm.participants * POINTS
    told = {
        "participants": (study["participants"], storm.participants),
        "decisions": (study["decisions"], points),
        "windows": (sum(study["windows"].values()), points),
        "missed": (study["windows"]["missed"], 0),
        "discrepancies": (study["discrepancies"], 0),
    }
    wrong += [
        f"{name}: {found}, not {expected}" for name, (found, expected) in told.items() if found != expected
    ]
    answered, jobs = _answers(storm, "/actions"), _answers(storm, "/end_decision_window")
    stored = {one["rid"]: one for one in _pages(get, "/decisions", "rid")}
    wrong += [f"no decision {one['rid']} is stored" for one in answered if one["rid"] not in stored]
    corrections = sum(differs for (about, _), differs in storm.corrected.items())
    noted = sum(act["act"] == "correct" for act in _pages(get, "/audit", "seq"))
    if noted != corrections:
        wrong.append(f"{noted} corrections are in the audit, not {corrections}")
    wrong += [f"decision {rid} was drawn wrongly" for rid, one in stored.items() if not _drawn(one)]
    if len({(one["participant_id"], one["decision_index"]) for one in stored.values()}) != points:
        wrong.append("the stored decisions are not one for each decision point")
    if len({one["job_id"] for one in jobs}) != points:
        wrong.append("the windows have not one job each")
    return wrong


def _answers(storm: Storm, path: str) -> list[dict[str, Any]]:
    return [told for about, told in storm.answers.items() if about[0] == path]


def _drawn(decision: dict[str, Any]) -> bool:
    return bool(decision["action"] == int(decision["seed"] / 2**53 < decision["act_prob"]))


def _pages(get: Callable[[str], Any], path: str, name: str) -> Iterator[dict[str, Any]]:
    last = 0
    while page := get(f"{path}?limit=1000&after={last}")[path.strip("/")]:
        yield from page
        last = page[-1][name]


@contextmanager
def brewing(
    env: dict[str, str], url: str, calls: int, threads: int, seed: int, step: Callable[[int], object]
) -> Iterator[tuple[Storm, remote.Remote]]:
    """A storm that has not begun, in a study of its own at the API under `url`, and who may look at it."""
    with EmaServer(Backend(token=None), port=0) as app:  # it knows nobody, and says so at once
        ema_url = f"http://127.0.0.1:{app.server_port}/ema_study"
        client = remote.begin(env, url, f"schedule.study_length={POINTS}", ema_url=ema_url, role="admin")
        yield Storm(Wire(url, client.token), calls, threads, seed, step), client


def play(
    env: dict[str, str], url: str, calls: int, threads: int, seed: int, step: Callable[[int], object]
) -> tuple[Storm, list[str]]:
    """A whole storm while nothing is away, and what is wrong with it."""
    with brewing(env, url, calls, threads, seed, step) as (storm, client):
        storm.run()
        sent_away = [
            f"{outcome}: {number} calls"
            for outcome, number in storm.findings.statuses.items()
            if outcome[0] == 503
        ]
        return storm, sent_away + check(storm, client.get)


@contextmanager
def stack() -> Iterator[Stack]:
    """A stack that lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="kairos-storm-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder) / "state") as servers:
            servers.postgres.create_database("storm")
            urls = servers.database_url("storm"), servers.broker_url()
            started = Stack(servers.state, servers.supervisor, environment(servers.state, *urls, free_port()))
            started.start()
            yield started


def arguments(parser: argparse.ArgumentParser) -> None:
    """The choice of sizes."""
    parser.add_argument("--calls", type=int, default=100_000, help="about how many calls are made")
    parser.add_argument("--threads", type=int, default=64)


def main() -> int:
    """The program; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description="A storm of duplicates against a stack of its own.")
    arguments(parser)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    return 1 if play_and_tell(chosen, chosen.seed).wrong else 0


def play_and_tell(given: argparse.Namespace, seed: int) -> Played:
    """Play with these choices, and print what happened."""
    with stack() as started, tqdm(total=given.calls, unit="call", smoothing=0.1) as bar:
        began = time.monotonic()
        storm, wrong = play(started.env, started.api_url, given.calls, given.threads, seed, bar.update)
        played = Played(storm.participants * POINTS, storm.findings, wrong, time.monotonic() - began)
    _tell(played)
    return played


def _tell(played: Played) -> None:
    found = played.findings
    print(f"{found.calls} calls in {played.seconds:.0f} s for {played.points} decision points")
    print(f"{found.given_up} of them given up before their answer and repeated")
    for (status, code), number in sorted(found.statuses.items()):
        if status:
            print(f"  {status}{f' ({code})' if code else ''}: {number}")
    for sentence in played.wrong[:20]:
        print(f"WRONG: {sentence}", file=sys.stderr)
    right = "every call of a decision point got its one decision"
    print(f"{len(played.wrong)} things are wrong" if played.wrong else right)


if __name__ == "__main__":
    sys.exit(main())
