"""The speed of ingesting windows beside Celery doing nothing, and the time until a policy has the last one.

    python -m benchmarks.pipeline [--windows 2000] [--rounds 3]

One run, one machine: workers with one process, then with two, under the same settings. A worker of Celery
alone drains messages of a task that does nothing; then the service's worker ingests as many windows: for each
it asks a back end that answers at once, stores the answer and has the study refitted. Then the time from the
end of a window to the policy that contains it, with 120 and with 10,000 participants of 60 decisions each, of
whom one or all have new rows. Prints Markdown tables.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import Engine, create_engine, text
from tqdm import tqdm

from benchmarks import crowd
from local.embedded import Embedded
from local.ports import free_port
from local.stack import MIGRATE, environment, python, worker_answers
from local.state import CLONE

SIZES = (120, 10_000)
PAST = 60
WATCH = 0.1  # seconds between two looks; looking more often would take processor time from the workers
WORKERS = (("benchmarks.noop", "noop"), ("workers.app", "ingest,refit,fit,upkeep"))
ALONE = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
ENDED = """
WITH ended AS (
    INSERT INTO windows
        (study_id, participant_id, decision_index, kind, state, query_start, query_end, ended_at)
    SELECT study_id, id, decision_index, 'ended', 'ended', now() - interval '1 day', now(), now()
    FROM participants WHERE study_id = :study_id RETURNING id)
INSERT INTO jobs (study_id, kind, window_id, run_after, sent_at)
SELECT :study_id, 'ingest', id, now(), now() FROM ended RETURNING id
"""
ANSWERS = """
SELECT '/' || s.name || ' ' || p.user_id,
    json_build_object('status', 'success', 'ema_data', json_build_object('1', json_build_object(
    'user_id', p.user_id, 'finished_ema', false, 'app_use_flag', false, 'action_taken', d.action,
    'seed', d.seed, 'act_prob', d.act_prob, 'policy_id', d.policy_id, 'decision_index', d.decision_index,
    'act_gen_timestamp', d.act_gen_timestamp, 'rid', d.id)))
FROM studies s
JOIN participants p ON p.study_id = s.id
JOIN decisions d ON d.participant_id = p.id AND d.decision_index = p.decision_index
"""
LEFT = "SELECT count(*) FROM jobs WHERE study_id = :study_id AND kind = 'ingest' AND state <> 'done'"
WRONG = """
SELECT code || ' ' || reason FROM jobs
WHERE study_id = :study_id AND kind = 'ingest' AND state <> 'done' LIMIT 1
"""


QUIET: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Bench:
    """A database and a broker, and the processes that work with them."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env, self.folder = env, folder
        self.database: Engine = create_engine(env["DATABASE_URL"])
        self.ema_port = free_port()
        self.command(*MIGRATE)

    def command(self, *words: str) -> None:
        """Run a command of the service."""
        subprocess.run(python(words), env=self.env, cwd=CLONE, check=True, capture_output=True)

    def study(
        self,
        name: str,
        people: int,
        past: int,
        pause: int,
        length: int = 1000,
        apart: timedelta = timedelta(0),
    ) -> int:
        """Create a study and return its id.

        It has `length` points and `pause` minutes between two fits; its `people` have `past` decisions each,
        which are `apart` from each other.
        """
        url = f"http://127.0.0.1:{self.ema_port}/{name}"
        words = ("study", "create", name, "--ema-url", url)
        settings = (f"schedule.study_length={length}", f"refit.min_interval_minutes={pause}")
        options = [word for setting in settings for word in ("--set", setting)]
        self.command("flask", "--app", "api.app", *words, *options)
        with self.database.begin() as connection:
            return crowd.settle(connection, name, people, past, apart)

    @contextmanager
    def running(self, *words: str) -> Iterator[None]:
        """Run a program during the `with` block."""
        with subprocess.Popen(python(words), env=self.env, cwd=CLONE, **QUIET) as process:
            try:
                yield
            finally:
                process.terminate()
                process.wait()

    @contextmanager
    def working(self, processes: int) -> Iterator[None]:
        """Run both workers, each with `processes` processes, during the `with` block."""
        with ExitStack() as both:
            for number, (app, queues) in enumerate(WORKERS):
                names = ("--queues", queues, "--hostname", f"{number}@bench")
                command = ("celery", "--app", app, "worker", *names, *ALONE, "--concurrency", str(processes))
                both.enter_context(self.running(*command))
            until(lambda: worker_answers(self.env["BROKER_URL"], len(WORKERS)))
            yield

    @contextmanager
    def back_end(self) -> Iterator[None]:
        """Run the studies' back end, which has the answers to everybody's last decision."""
        with self.database.connect() as connection:
            answers: dict[str, Any] = dict(connection.execute(text(ANSWERS)).all())
        path = self.folder / "answers.json"
        path.write_text(json.dumps(answers))
        with self.running("benchmarks.back_end", str(self.ema_port), str(path)):
            time.sleep(1)
            yield

    def end_windows(self, study_id: int) -> list[int]:
        """End everybody's last window anew and return the ids of the ingest jobs."""
        with self.database.begin() as connection:
            connection.execute(text("DELETE FROM jobs WHERE study_id = :study_id"), {"study_id": study_id})
            connection.execute(text("DELETE FROM windows WHERE study_id = :study_id"), {"study_id": study_id})
            return list(connection.scalars(text(ENDED), {"study_id": study_id}))

    def forget(self, study_id: int) -> None:
        """Delete the study's answers, so that each window is ingested for the first time, as in a trial."""
        with self.database.begin() as connection:
            # the table is append-only but for migrations
            connection.execute(text("SET LOCAL kairos.migration = 'on'"))
            connection.execute(text("DELETE FROM answers WHERE study_id = :study_id"), {"study_id": study_id})

    def value(self, statement: str, **values: Any) -> Any:
        """Return the single value of a query."""
        with self.database.connect() as connection:
            return connection.scalar(text(statement), values)


def until(condition: Callable[[], object], pause: float = 0.02, patience: float = 120.0) -> None:
    """Wait until `condition` holds. Raises TimeoutError after `patience` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(pause)


@contextmanager
def bench() -> Iterator[Bench]:
    """Start real servers in a temporary folder and stop them at the end of the `with` block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kairos-bench-", dir="/tmp")))
        folder.chmod(0o755)
        servers = stack.enter_context(Embedded(folder / "state"))
        servers.postgres.create_database("kairos")
        env = environment(servers.state, servers.database_url(), servers.broker_url(), free_port())
        os.environ.update(env)  # the messages are sent from here
        yield Bench(env, folder)


def sender() -> Celery:
    """Return the Celery application that sends the messages."""
    from benchmarks.noop import app  # here, because it reads the broker's address when it is imported

    return app


def nothing_left() -> bool:
    """Return whether the worker has taken every message of the task that does nothing."""
    with sender().connection_or_acquire() as connection:
        return bool(connection.default_channel.client.llen("noop") == 0)


def drain(servers: Bench, study_id: int, windows: int) -> tuple[float, float]:
    """Return the rates of the task that does nothing and of ingesting windows, per second."""
    noop_rate = rate("benchmarks.noop", "noop", list(range(windows)), nothing_left)
    servers.forget(study_id)
    job_ids = servers.end_windows(study_id)
    try:
        window_rate = rate(
            "kairos.ingest", "ingest", job_ids, lambda: servers.value(LEFT, study_id=study_id) == 0
        )
    except TimeoutError:
        sys.exit(f"a window is left: {servers.value(WRONG, study_id=study_id)}")
    return noop_rate, window_rate


def rate(task: str, queue: str, ids: list[int], is_drained: Callable[[], bool]) -> float:
    """Send a message for each id and return the messages per second until all are done."""
    began = time.perf_counter()
    for number in ids:
        sender().send_task(task, [number], queue=queue)
    until(is_drained, pause=WATCH)
    return len(ids) / (time.perf_counter() - began)


def latency(servers: Bench, study_id: int, changed: int) -> float:
    """Return the seconds from the end of a window to the policy that contains it.

    changed: the number of participants who have new rows.
    """
    with servers.database.begin() as connection:
        crowd.new_outcomes(connection, study_id, changed)
    policy_id = partial(
        servers.value, "SELECT policy_id FROM studies WHERE id = :study_id", study_id=study_id
    )
    before = policy_id()
    job_id = servers.end_windows(study_id)[0]
    began = time.perf_counter()
    sender().send_task("kairos.ingest", [job_id], queue="ingest")
    until(lambda: policy_id() > before, pause=0.005)
    return time.perf_counter() - began


def main() -> None:
    """Run all measurements and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=2000, help="drained in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with bench() as servers:
        study_id = servers.study("drained", options.windows, past=2, pause=15)
        sizes = {people: servers.study(f"of-{people}", people, PAST, pause=0) for people in SIZES}
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds")
        print("\n| worker processes | nothing, tasks/s | windows/s | of nothing |\n|---|---|---|---|")
        with servers.back_end():
            for processes in (1, 2):
                with servers.working(processes):
                    drain(servers, study_id, options.windows)  # not counted: the workers warm up
                    turns = tqdm(range(options.rounds), desc=f"{processes} processes", file=sys.stderr)
                    rates = [drain(servers, study_id, options.windows) for _ in turns]
                ratio = statistics.median(windows / noops for noops, windows in rates)
                noops, windows = (statistics.median(kind) for kind in zip(*rates, strict=True))
                print(f"| {processes} | {noops:.0f} | {windows:.0f} | {ratio:.0%} |")
            print("\n| participants | with new rows | last window to its policy, s |\n|---|---|---|")
            with servers.working(1):
                for people, study in sizes.items():
                    for changed in (1, people):
                        times = [latency(servers, study, changed) for _ in range(options.rounds + 1)][1:]
                        print(f"| {people:,} | {changed:,} | {statistics.median(times):.2f} |")


if __name__ == "__main__":
    main()
