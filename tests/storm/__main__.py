"""Both storms, one after the other: duplicates by the thousand, then a trial whose service is killed.

    python -m tests.storm --seeds 1 2 3 --report docs/storm.md

plays both with each seed, and stops with 1 after the first where something is wrong, or that was no storm.
`--calls 0` leaves out the first, `--points 0` the second.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.storm import duplicates, report
from tests.storm import kills as faults
from tests.storm.report import Run


def main(given: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="What may go wrong between a study's app and the service.")
    duplicates.arguments(parser)
    faults.arguments(parser)
    seeds = ("--seeds", "--seed")
    parser.add_argument(*seeds, type=int, nargs="+", default=[1], help="one run each, one after the other")
    parser.add_argument("--report", type=Path, help="write what happened to this file, as Markdown")
    return play(parser.parse_args(given))


def play(chosen: argparse.Namespace) -> int:
    """Run after run; 1 where something was wrong. What is known is written down after each."""
    runs: list[Run] = []
    for seed in chosen.seeds:
        first = duplicates.play_and_tell(chosen, seed) if chosen.calls else None
        second = faults.play_and_tell(chosen, seed) if chosen.points else None
        runs.append(Run(seed, first, second))
        if chosen.report:
            chosen.report.write_text(report.page(runs), encoding="utf-8")
        if runs[-1].wrong:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
