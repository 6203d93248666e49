"""The speed of /actions beside the least that a stored decision can cost, and while a fit runs.

    python -m benchmarks.actions [--calls 2000] [--rounds 9]

One run, one machine, one server with the same settings for all: Flask doing nothing, the floor (one SELECT
and one INSERT through the bare driver), and /actions; the rounds take turns, so that all meet the same noise.
Every participant has a posterior of their own, as in a trial. Then /actions while policies of 10,000
participants are fitted, one after the other, in turns with /actions alone. The tables stand in docs/.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Engine, create_engine, text
from tqdm import tqdm

from benchmarks import crowd, floor
from benchmarks.load import Load, post, run
from local.embedded import Embedded
from local.ports import free_port
from local.process import Process
from local.stack import Stack, answers, environment, python
from local.state import CLONE

PEOPLE = 2000
BIG = 10_000
NEW = 200  # of them have new rows in each fit: as many as meet two points a day within fifteen minutes
ANSWERS = {
    "finished_ema": True,
    "app_use_flag": False,
    "activity_question_response": True,
    "cannabis_use": [2],
}
SETTINGS = "--set schedule.study_length=1000 --set refit.min_interval_minutes=0"
KINDS = ("no-op", "floor", "/actions")
LOOP = """
import os
from workers.core import priority
priority.take_long_turns(os.nice(priority.NICENESS))
priority.lower_session(os.getpid())
while True:
    pass
"""


class Bench:
    """The running servers and two studies: "bench", whose calls are measured, and "big", which is fitted."""

    def __init__(self, stack: Stack, floor_url: str, database: Engine) -> None:
        self.stack, self.floor_url, self.database = stack, floor_url, database
        # read fifty times a second during the measurement: without transactions each look is one message
        self.looks = database.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.token = self._client("bench")
        self.big_token = self._client("big")
        with database.begin() as connection:
            connection.execute(text(floor.TABLES))
            connection.execute(
                text("INSERT INTO floor_people SELECT 'p' || n, 0 FROM generate_series(1, :n) n"),
                {"n": PEOPLE},
            )
            self.study_id = crowd.settle(connection, "bench", PEOPLE, past=10)
            self.big_id = crowd.settle(connection, "big", BIG, past=60)
        # from now on each participant has a posterior of their own
        for token in (self.token, self.big_token):
            self._fit(token)
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))

    def _client(self, study: str) -> str:
        """Create a study with a client account and return the token of a login."""
        for command in (
            f"study create {study} --ema-url http://127.0.0.1:9/ema {SETTINGS}",
            f"client create {study} --study {study} --role client",
        ):
            process = subprocess.run(
                python(("flask", "--app", "api.app", *command.split())),
                env=self.stack.env,
                cwd=CLONE,
                check=True,
                capture_output=True,
                text=True,
            )
        account = json.loads(process.stdout)  # the last command's
        body = {"api_user": account["name"], "api_pass": account["password"]}
        return str(self._post("/auth/login", body)["auth_token"])

    def _post(self, path: str, body: dict[str, object], token: str = "") -> dict[str, object]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.stack.api_url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    def load(self, kind: str, calls: int, concurrency: int) -> Load:
        """Send `calls` requests of one kind, each of another participant at a new decision point."""
        with self.database.begin() as connection:
            crowd.next_point(connection, self.study_id)
        bodies = [json.dumps({"user_id": f"p{n}", **ANSWERS}).encode() for n in range(1, calls + 1)]
        url = self.stack.api_url if kind == "/actions" else self.floor_url
        path = {"no-op": "/noop", "floor": "/floor", "/actions": "/actions"}[kind]
        measured = run(url, [post(path, body, self.token) for body in bodies], concurrency)
        assert set(measured.statuses) == {200}, sorted(set(measured.statuses))
        return measured

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Fit policies of the big study, one after the other, during the `with` block."""
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            fits = pool.submit(self._fit_until, stop)
            try:
                time.sleep(3)  # the first fit is under way by then
                before = self._policies()
                yield
            finally:
                stop.set()
            fits.result()
        assert self._policies() > before, "no fit ended within the block"

    def _fit_until(self, stop: threading.Event) -> None:
        """Fit until `stop` is set. Raises AssertionError where a fit fails."""
        while not stop.is_set():
            with self.database.begin() as connection:
                crowd.new_outcomes(connection, self.big_id, NEW)
            self._fit(self.big_token)

    def _fit(self, token: str) -> None:
        job = self._post("/update_parameters", {}, token)["job_id"]
        while (state := self._state(job)) != "done":
            assert state != "failed", f"the fit of job {job} failed"
            time.sleep(0.02)

    def _policies(self) -> int:
        with self.database.connect() as connection:
            count = text("SELECT count(*) FROM policies WHERE study_id = :id")
            return int(connection.scalar(count, {"id": self.big_id}) or 0)

    def _state(self, job: object) -> str:
        return str(self.looks.scalar(text("SELECT state FROM jobs WHERE id = :id"), {"id": job}))


@contextmanager
def bench() -> Iterator[Bench]:
    """Start real servers in a temporary folder and stop them at the end of the `with` block."""
    with tempfile.TemporaryDirectory(prefix="kairos-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder) / "state") as servers:
            servers.postgres.create_database("kairos")
            api_port, floor_port = free_port(), free_port()
            settings = environment(servers.state, servers.database_url(), servers.broker_url(), api_port)
            stack = Stack(servers.state, servers.supervisor, settings)
            stack.start()
            floor_url = f"http://127.0.0.1:{floor_port}"
            floor_process = Process(
                "floor",
                python(("gunicorn", "benchmarks.floor:app")),
                settings | {"KAIROS_API_BIND": f"127.0.0.1:{floor_port}"},
                # no page of this application answers a GET with success: one try gives it time to start
                ready=lambda: answers(f"{floor_url}/static/none") or True,
                folder=CLONE,
            )
            servers.supervisor.start(floor_process)
            yield Bench(stack, floor_url, create_engine(servers.database_url()))


def main() -> None:
    """Run all measurements and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=PEOPLE, help="requests of each kind in a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with bench() as servers:
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds")
        for concurrency in (1, 16):
            calls = options.calls if concurrency > 1 else options.calls // 4
            _compare(servers, calls, options.rounds, concurrency)
            _beside_a_fit(
                servers, options.calls, options.rounds, concurrency
            )  # long enough for two whole fits


def _compare(servers: Bench, calls: int, rounds: int, concurrency: int) -> None:
    """Measure each kind of call in turns and print their table."""
    for kind in KINDS:
        servers.load(kind, calls // 4, concurrency)  # not counted: caches fill and connections are made
    loads: dict[str, list[Load]] = {kind: [] for kind in KINDS}
    for kind in tqdm([*KINDS] * rounds, desc=f"{concurrency} at a time", file=sys.stderr):
        loads[kind].append(servers.load(kind, calls, concurrency))
    floors = [load.rate for load in loads["floor"]]
    _head(f"{calls} calls, {concurrency} at a time", "of the floor")
    for kind in KINDS:
        ratio = statistics.median(load.rate / base for load, base in zip(loads[kind], floors, strict=True))
        _row(kind, loads[kind], f"{ratio:.0%}")


def _beside_a_fit(servers: Bench, calls: int, rounds: int, concurrency: int) -> None:
    """Measure /actions in turns alone, beside fits and beside empty loops, and print their table."""
    company: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "alone": nullcontext,
        f"while {BIG:,} participants are fitted": servers.fitting,
        "while every core runs an empty loop, which gives way as a fit does": loops,
    }
    loads: dict[str, list[Load]] = {name: [] for name in company}
    for name in tqdm([*company] * rounds, desc=f"{concurrency} at a time beside a fit", file=sys.stderr):
        with company[name]():
            loads[name].append(servers.load("/actions", calls, concurrency))
    base = [load.percentile(0.99) for load in loads["alone"]]
    _head(f"/actions, {concurrency} at a time", "p99 to alone")
    for name, rounds_of_name in loads.items():
        ratios = (load.percentile(0.99) / p99 for load, p99 in zip(rounds_of_name, base, strict=True))
        _row(name, rounds_of_name, f"{statistics.median(ratios):.2f}")


@contextmanager
def loops() -> Iterator[None]:
    """Run an empty loop on every processor during the `with` block.

    The loops give way as a fit does, so they show how long calls wait beside any other work.
    """
    command = [sys.executable, "-c", LOOP]
    count = os.cpu_count() or 1
    running = [subprocess.Popen(command, cwd=CLONE, start_new_session=True) for _ in range(count)]
    try:
        time.sleep(2)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _head(first: str, last: str) -> None:
    print(f"\n| {first} | calls/s | p50 ms | p99 ms | {last} |\n|---|---|---|---|---|")


def _row(name: str, loads: list[Load], last: str) -> None:
    rate = statistics.median(load.rate for load in loads)
    middle, high = (statistics.median(load.percentile(share) for load in loads) for share in (0.5, 0.99))
    print(f"| {name} | {rate:.0f} | {middle:.1f} | {high:.1f} | {last} |")


if __name__ == "__main__":
    main()
