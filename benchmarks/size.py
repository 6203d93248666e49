"""What a large study costs beside decisions and fits: an export, one GET /metrics, one run of the watchdog.

    python -m benchmarks.size [--people 10000]

Participants of 60 decisions each, with their windows, jobs and learning rows. Each part runs in a process of
its own; memory is the most it had, and what it had before it began. Prints a Markdown table.
"""

import argparse
import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from prometheus_client import generate_latest
from sqlalchemy import text

from benchmarks import crowd
from benchmarks.pipeline import PAST, Bench, bench
from local.stack import python
from local.state import CLONE

MEGABYTE = 1024  # of ru_maxrss, which Linux tells in kilobytes


def export(study_id: int) -> None:
    """Write all files, and the zip of them."""
    from models.core import objects
    from models.core.session import transact
    from models.research import exports
    from workers.research import exports as worker

    job = transact(lambda session: exports.request(session, study_id, datetime.now(UTC)))
    worker.run(job.id)
    (stored,) = objects.store().listed(exports.AREA)
    objects.store().delete(stored.key)


def metrics(_study_id: int) -> None:
    """What Prometheus asks for, read anew."""
    from api.core import metrics as asked

    asked.forget()
    assert b'state="ingested"' in generate_latest(asked._kept)


def watch(_study_id: int) -> None:
    """The watchdog at its every minute."""
    from workers.oversight import watchdog as worker

    worker.run()


def fit(study_id: int) -> None:
    """Learning rows and a policy."""
    from models.core.session import transact
    from models.trial import refits
    from workers.trial import refit

    now = datetime.now(UTC)
    asked = transact(lambda session: refits.request(session, study_id, now, hyperparameters=False))
    refit.run(asked.job_id)


PARTS: Mapping[str, Callable[[int], None]] = {
    "fit": fit,
    "one GET /metrics": metrics,
    "one run of the watchdog": watch,
    "an export, CSV and Parquet, zipped": export,
}
AGAIN = {"one GET /metrics", "one run of the watchdog"}


def megabytes() -> float:
    """The most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def measure(part: str, study_id: int) -> None:
    """Run a part here; what it took, on standard output."""
    from api.core import metrics as _metrics  # noqa: F401
    from models.core.session import transact
    from workers.research import exports as _export  # noqa: F401

    transact(lambda session: session.execute(text("SELECT 1")))
    run = partial(PARTS[part], study_id)
    if part in AGAIN:  # the first time is another one: a connection, draws that were not read
        run()
    before, began = megabytes(), time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - began, "before": before, "most": megabytes()}))


def measured(made: Bench, part: str, study_id: int) -> dict[str, float]:
    """What a part takes in a process of its own."""
    words = ("benchmarks.size", "--part", part, "--study-id", str(study_id))
    ran = subprocess.run(python(words), env=made.env, cwd=CLONE, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--people", type=int, default=10_000)
    options.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    options.add_argument("--study-id", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.part:
        measure(given.part, given.study_id)
        return
    with bench() as made:
        made.env["KAIROS_STORE"] = (Path(made.folder) / "objects").as_uri()
        half_a_day = timedelta(hours=12)
        study_id = made.study("large", given.people, PAST, pause=0, length=PAST, apart=half_a_day)
        with made.database.begin() as connection:
            crowd.behind(connection, study_id)
        with made.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        measured(made, "fit", study_id)
        print(f"{given.people:,} participants, {PAST} decisions each, {os.cpu_count()} cores")
        print("\n| | seconds | most memory, MB | before it began, MB |\n|---|---|---|---|")
        for part in list(PARTS)[1:]:
            took = measured(made, part, study_id)
            print(
                f"| {part} | {took['seconds']:.2f} | {took['most']:.0f} | {took['before']:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
