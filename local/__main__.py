"""The stack on this machine: `python -m local up` and `python -m local demo`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from local.errors import StackError

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _readable(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    try:
        path.open("rb").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read ({error.strerror})") from None
    return path


_positive.__name__ = "positive whole number"  # argparse names the type in its message


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="run the stack until Ctrl-C")
    demo = commands.add_parser("demo", help="run the stack and rehearse a study on it")
    demo.add_argument("--recorded", type=_readable, metavar="FILE", help="play these recorded participants")
    demo.add_argument("--participants", type=_positive, metavar="N", help="play so many synthetic ones")
    demo.add_argument("--points", type=_positive, metavar="T", help="through so many decision points")
    return top


def run(options: argparse.Namespace) -> int:
    """Run the chosen command and return its exit code."""
    try:  # imported here, so that a Python without the packages gets a sentence and no traceback
        from local.demo import Rehearsal, demo
        from local.up import up
    except ModuleNotFoundError as error:
        raise StackError(f"The package {error.name} is missing: use `make`, or .venv/bin/python.") from None
    if options.command == "up":
        return up()
    return demo(Rehearsal(options.recorded, options.participants, options.points))


def main() -> int:
    """Return the exit code: 0, 1 with a sentence on stderr, 2 for a bad command line, 130 if interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    options = parser().parse_args()
    # a closed terminal or a polite kill must stop the children in order, as Ctrl-C does
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return run(options)
    except StackError as error:
        print(f"kairos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if options.command == "up" else INTERRUPTED  # Ctrl-C is how `up` is meant to end


if __name__ == "__main__":
    sys.exit(main())
