"""The process that ends the groups named on its standard input as soon as that input closes.

`local.leash` runs this file as a process of its own and holds the other end of the pipe, so the input closes
when the supervisor is gone, however it ended. Lines of the input:

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
    """Read the whole input and return the groups to end, each with the signal that stops its leader."""
    groups: dict[int, int] = {}
    for line in sys.stdin:
        words = [int(word) for word in line[1:].split()]
        if line.startswith("="):
            groups = {}
        groups.update(zip(words[::2], words[1::2], strict=True))
    return groups


def alive(group: int) -> bool:
    """Return whether the group has a member that is ours.

    A group that may not be signalled belongs to somebody else by now.
    """
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
    """Wait until the supervisor is gone, then end what it left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups = read_groups()
    if groups:
        # The lock's file names no supervisor any more: a new one that waits for the lock may go on waiting.
        os.ftruncate(int(sys.argv[1]), 0)
    end(groups)


if __name__ == "__main__":
    main()
