"""Both storms, one after the other: duplicates by the thousand, then a trial whose service is killed.

    python -m tests.storm --calls 100000 --participants 40 --points 30 --kills 6 --report docs/storm.md

`--calls 0` leaves out the first, `--points 0` the second. It exits with 1 where either found something wrong.
"""

import argparse
import sys
from collections.abc import Sequence

from tests.api import storm as duplicates
from tests.faults import storm as faults


def main(given: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="What may go wrong between a study's app and the service.")
    duplicates.arguments(parser)
    faults.arguments(parser)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(given)
    wrong = duplicates.play_and_tell(chosen) if chosen.calls else 0
    return wrong | (faults.play_and_tell(chosen) if chosen.points else 0)


if __name__ == "__main__":
    sys.exit(main())
