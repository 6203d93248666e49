"""`python -m replay EXPORT`: replay an export, a folder or a zip, without a database.

Exit codes: 0 nothing diverged, 1 something did, 2 the export cannot be read.
"""

import argparse
import sys
from pathlib import Path

from replay.checks import replay
from replay.format.reading import Unreadable


def main(words: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m replay", description=__doc__)
    parser.add_argument("export", type=Path, help="folder or zip")
    parser.add_argument(
        "--key", type=bytes.fromhex, metavar="HEX", help="the study's key, once it is revealed"
    )
    parser.add_argument("--sha256", metavar="HEX", help="of manifest.json, as the service told it")
    options = parser.parse_args(words)
    try:
        report = replay(options.export, options.key, options.sha256)
    except Unreadable as unreadable:
        print(f"kairos: {options.export} cannot be replayed: {unreadable}", file=sys.stderr)
        return 2
    count = sum(report.diverged.values())
    print(f"replay of {options.export}", *report.lines(), sep="\n")
    print(f"{count} divergences" if count else "no divergence")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
