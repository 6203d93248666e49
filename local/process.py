"""The description of a process that the supervisor runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from local.os_user import Account


def always() -> bool:
    """Return True: the readiness of a process that cannot be asked whether it answers."""
    return True


@dataclass(frozen=True)
class Process:
    """A program to run, a check that it answers, and the signal that stops it.

    `environment` is the program's whole environment. `ready` returns within about a second. `stop_signal`
    makes the program end by itself.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    ready: Callable[[], bool] = always
    folder: Path = Path("/")
    stop_signal: Signals = SIGTERM
    account: Account | None = None
