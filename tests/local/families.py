"""Processes with children, and waiting for them to end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import psutil  # type: ignore[import-untyped]  # it publishes no types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Running: TypeAlias = Any  # a psutil.Process
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
FAMILY = (
    sys.executable,
    "-c",
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); exec({STUBBORN!r})",
)


def family_of(pid: int) -> list[Running]:
    """The process and everything below it, as it is now."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def running(processes: Iterable[Running]) -> list[Running]:
    """Those that still run; one that nobody has waited for yet has ended."""
    return [process for process in processes if _runs(process)]


def _runs(process: Running) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether `condition` comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
