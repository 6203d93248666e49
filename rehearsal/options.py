"""The command line and the environment of a rehearsal."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

N = TypeVar("N", int, float)


class CannotStart(Exception):
    """The reason why the rehearsal cannot start, in one sentence."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CannotStart(message)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `words`, or the command line of this process. Raises CannotStart."""
    parser = _Parser(prog="python -m rehearsal", description="Play a study's back end; check every answer.")
    add = parser.add_argument
    add("--api", required=True, type=_url, help="URL of the service")
    add("--study", required=True, help="name of a study that has no participants yet")
    add(
        "--listen",
        required=True,
        type=_number(int, 1, 65535),
        metavar="PORT",
        help="where to serve /ema_study",
    )
    add("--recorded", type=Path, metavar="FILE", help="CSV of real people to play; default synthetic ones")
    add("--participants", type=_number(int, 1, 10_000), metavar="N", help="default 16, or all recorded ones")
    add("--points", type=_number(int, 1, 100_000), metavar="T", help="default: the study's length")
    add("--seed", type=int, default=1, metavar="S", help="of synthetic people and of repeats (default 1)")
    add("--threads", type=_number(int, 1, 256), default=8, metavar="K", help="calls at a time (default 8)")
    add("--patience", type=_number(float, 1, 86_400), default=300.0, metavar="SECONDS", help="with an outage")
    add("--ema-faults", type=_number(float, 0, 1), default=0.0, metavar="SHARE", help="of calls that fail")
    return parser.parse_args(words)


def account(variable: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """Return name and password from a variable that holds name:password, None where it is not set."""
    value = environment.get(variable, "")
    name, colon, password = value.partition(":")
    if value and not (name and colon and password):
        raise CannotStart(f"{variable} must be name:password")
    return (name, password) if value else None


def _number(kind: Callable[[str], N], low: float, high: float) -> Callable[[str], N]:
    """Return a type for argparse: a number of that kind from `low` to `high`."""

    def number(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of that kind") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not within {low:g} and {high:g}")
        return value

    return number


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// URL")
    return text.rstrip("/")
