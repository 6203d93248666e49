"""How near /actions comes to the least that a stored decision can cost, and what a running fit does to it.

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
    """The servers, and prepared requests for each kind."""

    def __init__(self, stack: Stack, floor_url: str, database: Engine) -> None:
        self.stack, self.floor_url, self.database = stack, floor_url, database
        # asked fifty times a second beside what is measured: one message each time
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
        for token in (
            self.token,
            self.big_token,
        ):  # from now on each participant has a posterior of their own
            self._fit(token)
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))

    def _client(self, study: str) -> str:
        for command in (
            f"study create {study} --ema-url http://127.0.0.1:9/ema {SETTINGS}",
            f"client create {study} --study {study} --role client",
        ):
            made = subprocess.run(
                python(("flask", "--app", "api.app", *command.split())),
                env=self.stack.env,
                cwd=CLONE,
                check=True,
                capture_output=True,
                text=True,
            )
        account = json.loads(made.stdout)
        body = {"api_user": account["name"], "api_pass": account["password"]}
        return str(self._post("/auth/login", body)["auth_token"])

    def _post(self, path: str, body: dict[str, object], token: str = "") -> dict[str, object]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        asked = urllib.request.Request(self.stack.api_url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked) as answer:
            found: dict[str, object] = json.load(answer)
        return found

    def load(self, kind: str, calls: int, concurrency: int) -> Load:
        """`calls` requests of one kind, each of another participant at a new decision point."""
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
        """Policies of the big study are fitted, one after the other, within the block."""
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            fits = pool.submit(self._fit_until, stop)
            try:
                time.sleep(3)
                before = self._policies()
                yield
            finally:
                stop.set()
            fits.result()
        assert self._policies() > before, "no fit ended within the block"

    def _fit_until(self, stop: threading.Event) -> None:
        """Raises AssertionError where a fit fails."""
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
            counted = text("SELECT count(*) FROM policies WHERE study_id = :id")
            return int(connection.scalar(counted, {"id": self.big_id}) or 0)

    def _state(self, job: object) -> str:
        return str(self.looks.scalar(text("SELECT state FROM jobs WHERE id = :id"), {"id": job}))


@contextmanager
def bench() -> Iterator[Bench]:
    """Real servers in a folder of their own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kairos-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder) / "state") as servers:
            servers.postgres.create_database("kairos")
            api_port, floor_port = free_port(), free_port()
            settings = environment(servers.state, servers.database_url(), servers.broker_url(), api_port)
            stack = Stack(servers.state, servers.supervisor, settings)
            stack.start()
            command = python(("gunicorn", "benchmarks.floor:app"))
            servers.supervisor.start(_floor(command, settings, floor_port))
            yield Bench(stack, f"http://127.0.0.1:{floor_port}", create_engine(servers.database_url()))


def _floor(command: list[str], settings: dict[str, str], port: int) -> Process:
    there = {**settings, "KAIROS_API_BIND": f"127.0.0.1:{port}"}
    return Process(
        "floor",
        command,
        there,
        ready=lambda: answers(f"http://127.0.0.1:{port}/static/none") or True,
        folder=CLONE,
    )


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--calls", type=int, default=PEOPLE, help="requests of each kind in a round")
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    with bench() as made:
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {given.rounds} rounds")
        for concurrency in (1, 16):
            calls = given.calls if concurrency > 1 else given.calls // 4
            _compare(made, calls, given.rounds, concurrency)
            _beside_a_fit(made, given.calls, given.rounds, concurrency)  # long enough for two whole fits


def _compare(made: Bench, calls: int, rounds: int, concurrency: int) -> None:
    for kind in KINDS:
        made.load(kind, calls // 4, concurrency)  # warm
    loads: dict[str, list[Load]] = {kind: [] for kind in KINDS}
    for kind in tqdm([*KINDS] * rounds, desc=f"{concurrency} at a time", file=sys.stderr):
        loads[kind].append(made.load(kind, calls, concurrency))
    floors = [load.rate for load in loads["floor"]]
    _head(f"{calls} calls, {concurrency} at a time", "of the floor")
    for kind in KINDS:
        ratio = statistics.median(load.rate / base for load, base in zip(loads[kind], floors, strict=True))
        _row(kind, loads[kind], f"{ratio:.0%}")


def _beside_a_fit(made: Bench, calls: int, rounds: int, concurrency: int) -> None:
    company: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "alone": nullcontext,
        f"while {BIG:,} participants are fitted": made.fitting,
        "while every core runs an empty loop, which gives way as a fit does": loops,
    }
    loads: dict[str, list[Load]] = {name: [] for name in company}
    for name in tqdm([*company] * rounds, desc=f"{concurrency} at a time beside a fit", file=sys.stderr):
        with company[name]():
            loads[name].append(made.load("/actions", calls, concurrency))
    base = [load.percentile(0.99) for load in loads["alone"]]
    _head(f"/actions, {concurrency} at a time", "p99 to alone")
    for name, found in loads.items():
        ratios = (load.percentile(0.99) / before for load, before in zip(found, base, strict=True))
        _row(name, found, f"{statistics.median(ratios):.2f}")


@contextmanager
def loops() -> Iterator[None]:
    """Work of no kind on every processor, which gives way as a fit does: what calls wait beside anything."""
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
