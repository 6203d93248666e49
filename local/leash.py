"""Ties children to the life of this process, so that none outlives it, however it ends.

Two ropes, because each has a weak side. On Linux the kernel signals a child whose parent is gone (PDEATHSIG),
but not the child's own children. Everywhere, a second process (`local.reaper`) reads from a pipe that only we
hold open; when the pipe closes it ends the process group of every child, grandchildren included.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.process import Process

REAPER = Path(__file__).with_name("reaper.py")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Leash:
    """Starts children in sessions of their own, all of which end when this process does.

    `lock` is the descriptor of the state folder's lock: the reaper holds it too, so that the folder is free
    only when the last child has gone. `kernel=False` leaves the pipe as the only rope, as on macOS. PDEATHSIG
    follows the thread that forked, so `spawn` belongs in the main thread.
    """

    def __init__(self, lock: int, *, kernel: bool = True) -> None:
        self._lock = lock
        self._kernel = kernel and LIBC is not None
        self._groups: dict[int, int] = {}
        self._start_reaper()

    def _start_reaper(self) -> None:
        reading, self._pipe = os.pipe()
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(REAPER), str(self._lock)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        os.close(reading)

    def keep(self) -> None:
        """Start the reaper again if somebody killed it."""
        if self._reaper.poll() is not None:
            os.close(self._pipe)
            self._start_reaper()
            self._tell()

    def _tell(self) -> None:
        words = " ".join(f"{group} {number}" for group, number in self._groups.items())
        os.write(self._pipe, f"={words}\n".encode())

    def spawn(self, process: Process, out: IO[bytes] | int | None) -> subprocess.Popen[bytes]:
        """Start `process` with `out` as its output and errors (None: ours); OSError if it cannot be run."""
        self.keep()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            child = subprocess.Popen(
                process.command,
                env=process.environment,
                cwd=process.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=None if out is None else subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._tie(process.stop_signal, held),  # noqa: PLW1509 (two system calls, no lock taken)
                user=process.account.uid if process.account else None,
                group=process.account.gid if process.account else None,
                extra_groups=[] if process.account else None,
            )
        except OSError:
            self._tell()  # the child may have named itself before it failed
            raise
        else:
            self._groups[child.pid] = process.stop_signal
            return child
        finally:  # an interruption between the fork and the line above would lose sight of the child
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _tie(self, stop_signal: int, held: set[int | signal.Signals]) -> Callable[[], None]:
        parent, pipe, kernel = os.getpid(), self._pipe, self._kernel

        def tie() -> None:
            os.write(pipe, f"+{os.getpid()} {stop_signal}\n".encode())
            if kernel and LIBC is not None:
                LIBC.prctl(PR_SET_PDEATHSIG, stop_signal)
                if os.getppid() != parent:  # gone before the kernel knew of our wish
                    os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

        return tie

    def release(self, pid: int) -> None:
        """Forget a child that has been waited for: its number may soon be somebody else's."""
        if self._groups.pop(pid, None) is not None:
            self.keep()
            self._tell()

    def close(self) -> None:
        """Let the reaper go; it ends whatever is still on the leash. Twice does no harm."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._reaper.wait()
            self._pipe = -1
