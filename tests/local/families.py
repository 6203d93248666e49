"""Processes with children, and waiting for them to end."""

from __future__ import annotations

import contextlib
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
    """Return the process and all its descendants at this moment."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def running(processes: Iterable[Running]) -> list[Running]:
    """Return the processes that still run."""
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            # a zombie has ended; only nobody has waited for it yet
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Return whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
