"""What a supervised process is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from local.os_user import Account


def always() -> bool:
    """The readiness of a process that cannot be asked."""
    return True


@dataclass(frozen=True)
class Process:
    """A program to run, how to see that it answers, and how to stop it.

    `environment` is the whole environment of the program, `ready` returns at once or within about a second,
    and `stop_signal` is what makes the program end by itself.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    ready: Callable[[], bool] = always
    folder: Path = Path("/")
    stop_signal: Signals = SIGTERM
    account: Account | None = None
