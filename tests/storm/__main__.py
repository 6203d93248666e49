"""Both storms, one after the other: thousands of duplicates, then a trial whose processes are killed.

    python -m tests.storm --seeds 1 2 3 --report docs/storm.md

plays both with each seed, and stops with exit code 1 after the first run in which something is wrong or that
was no storm. `--calls 0` leaves out the first storm, `--points 0` the second.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.storm import duplicates, report
from tests.storm import kills as faults
from tests.storm.report import Run


def main(words: Sequence[str] | None = None) -> int:
    """Play the storms that `words`, or the command line, describe; return the exit code."""
    parser = argparse.ArgumentParser(description="What may go wrong between a study's app and the service.")
    duplicates.arguments(parser)
    faults.arguments(parser)
    seeds = ("--seeds", "--seed")
    parser.add_argument(*seeds, type=int, nargs="+", default=[1], help="one run each, one after the other")
    parser.add_argument("--report", type=Path, help="write what happened to this file, as Markdown")
    return play(parser.parse_args(words))


def play(options: argparse.Namespace) -> int:
    """Play a run for each seed; return 1 at the first in which something is wrong, else 0."""
    runs: list[Run] = []
    for seed in options.seeds:
        first = duplicates.play_and_print(options, seed) if options.calls else None
        second = faults.play_and_print(options, seed) if options.points else None
        runs.append(Run(seed, first, second))
        if options.report:  # after each run, so that a run that is broken off leaves the page of the others
            options.report.write_text(report.page(runs), encoding="utf-8")
        if runs[-1].wrong:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
