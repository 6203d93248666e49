"""Ends the process groups it was told of as soon as its standard input closes.

`local.leash` runs this file as a process of its own and holds the other end of the pipe, so the input closes
when the supervisor is gone, however it went. Lines of the input:

    +GROUP SIGNAL                    one more group (written by the child itself, before its program starts)
    =GROUP SIGNAL GROUP SIGNAL ...   these groups and no others

The argument is the descriptor of the state folder's lock, held until the last group has gone. Only the
standard library is used, and nothing of this project, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 3.0


def read_groups() -> dict[int, int]:
    """The groups to end, each with the signal its leader is stopped by; returns at the end of the input."""
    groups: dict[int, int] = {}
    for line in sys.stdin:
        words = [int(word) for word in line[1:].split()]
        if line.startswith("="):
            groups = {}
        groups.update(zip(words[::2], words[1::2], strict=True))
    return groups


def alive(group: int) -> bool:
    """Whether the group has a member; one that may not be signalled is somebody else's by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 0)
        return True
    return False


def end(groups: dict[int, int]) -> None:
    """Ask each leader to stop, wait a little, then kill whatever is left of its group."""
    for group, stop_signal in groups.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(group, stop_signal)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups = read_groups()
    if groups:
        os.ftruncate(int(sys.argv[1]), 0)  # no supervisor any more: who waits for the lock may go on waiting
    end(groups)


if __name__ == "__main__":
    main()
