"""The cost of a large study beside decisions and fits: an export, one GET /metrics, one run of the watchdog.

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

MEGABYTE = 1024  # in ru_maxrss, which Linux counts in kilobytes


def export(study_id: int) -> None:
    """Write all files of an export and their zip."""
    from models.core import objects
    from models.core.session import transact
    from models.research import exports
    from workers.research import exports as worker

    job = transact(lambda session: exports.request(session, study_id, datetime.now(UTC)))
    worker.run(job.id)
    (stored,) = objects.store().listed(exports.AREA)
    objects.store().delete(stored.key)


def metrics(_study_id: int) -> None:
    """Compute the answer of GET /metrics anew."""
    from api.core import metrics as api_metrics
    from api.oversight import gauges

    api_metrics.GAUGES[:] = gauges.READERS
    api_metrics.forget()
    assert b'state="ingested"' in generate_latest(api_metrics._Gauges())


def watch(_study_id: int) -> None:
    """Run the watchdog once, as every minute."""
    from workers.oversight import watchdog as worker

    worker.run()


def fit(study_id: int) -> None:
    """Build the learning rows and fit a policy."""
    from models.core.session import transact
    from models.trial import refits
    from workers.trial import refit

    now = datetime.now(UTC)
    request = transact(lambda session: refits.request(session, study_id, now, hyperparameters=False))
    refit.run(request.job_id)


PARTS: Mapping[str, Callable[[int], None]] = {
    "fit": fit,
    "one GET /metrics": metrics,
    "one run of the watchdog": watch,
    "an export, CSV and Parquet, zipped": export,
}
AGAIN = {"one GET /metrics", "one run of the watchdog"}


def megabytes() -> float:
    """Return the peak memory of this process in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def measure(part: str, study_id: int) -> None:
    """Run a part in this process and print its seconds and memory as JSON."""
    # imported before the measurement, since a running service has imported them long ago
    from api.core import metrics as _metrics  # noqa: F401
    from models.core.session import transact
    from workers.research import exports as _export  # noqa: F401

    transact(lambda session: session.execute(text("SELECT 1")))
    run = partial(PARTS[part], study_id)
    if part in AGAIN:  # the first run also makes a connection and reads draws that later ones need not
        run()
    before, began = megabytes(), time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - began, "before": before, "most": megabytes()}))


def measure_apart(servers: Bench, part: str, study_id: int) -> dict[str, float]:
    """Run `measure` in a process of its own and return its figures."""
    words = ("benchmarks.size", "--part", part, "--study-id", str(study_id))
    process = subprocess.run(python(words), env=servers.env, cwd=CLONE, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Run all measurements and print their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--study-id", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure(options.part, options.study_id)
        return
    with bench() as servers:
        servers.env["KAIROS_STORE"] = (Path(servers.folder) / "objects").as_uri()
        half_a_day = timedelta(hours=12)
        study_id = servers.study("large", options.people, PAST, pause=0, length=PAST, apart=half_a_day)
        with servers.database.begin() as connection:
            crowd.add_windows(connection, study_id)
        with servers.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        measure_apart(servers, "fit", study_id)
        print(f"{options.people:,} participants, {PAST} decisions each, {os.cpu_count()} cores")
        print("\n| | seconds | most memory, MB | before it began, MB |\n|---|---|---|---|")
        for part in list(PARTS)[1:]:
            figures = measure_apart(servers, part, study_id)
            cells = f"{figures['seconds']:.2f} | {figures['most']:.0f} | {figures['before']:.0f}"
            print(f"| {part} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
