"""Child processes that never outlive this process, however it ends.

Two mechanisms, because each has a weakness. On Linux the kernel signals a child whose parent is gone
(PDEATHSIG), but not the child's own children. Everywhere, a second process (`local.reaper`) reads from a pipe
that only this process holds open; when the pipe closes, the reaper ends the process group of every child,
grandchildren included.
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
    """The children of this process, each in a session of its own, all of which end when this process does.

    `lock` is the descriptor of the state folder's lock: the reaper holds it too, so that the folder is free
    only when the last child has gone. `kernel=False` does without PDEATHSIG, as on macOS. PDEATHSIG follows
    the thread that forked, so `spawn` must be called in the main thread.
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

    def restart_dead_reaper(self) -> None:
        """Start the reaper again if somebody killed it."""
        if self._reaper.poll() is not None:
            os.close(self._pipe)
            self._start_reaper()
            self._send_groups()

    def _send_groups(self) -> None:
        """Send the reaper the whole list of groups; it replaces the one that the reaper has."""
        words = " ".join(f"{group} {number}" for group, number in self._groups.items())
        os.write(self._pipe, f"={words}\n".encode())

    def spawn(self, process: Process, out: IO[bytes] | int | None) -> subprocess.Popen[bytes]:
        """Start `process` with `out` as its output and errors (None: ours). Raises OSError."""
        self.restart_dead_reaper()
        # an interruption between the fork and the noting of the child would lose sight of it
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            child = subprocess.Popen(
                process.command,
                env=process.environment,
                cwd=process.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=None if out is None else subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._tie(process.stop_signal, mask),  # noqa: PLW1509 (two system calls, no lock taken)
                user=process.account.uid if process.account else None,
                group=process.account.gid if process.account else None,
                extra_groups=[] if process.account else None,
            )
        except OSError:
            self._send_groups()  # the child may have named itself before it failed
            raise
        else:
            self._groups[child.pid] = process.stop_signal
            return child
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _tie(self, stop_signal: int, mask: set[int | signal.Signals]) -> Callable[[], None]:
        """Return the function that the child runs between the fork and its program."""
        parent, pipe, kernel = os.getpid(), self._pipe, self._kernel

        def tie() -> None:
            os.write(pipe, f"+{os.getpid()} {stop_signal}\n".encode())
            if kernel and LIBC is not None:
                LIBC.prctl(PR_SET_PDEATHSIG, stop_signal)
                if os.getppid() != parent:  # the parent died before prctl, so no signal will come
                    os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        return tie

    def release(self, pid: int) -> None:
        """Forget a child that has been waited for: the system may soon give its number to another process."""
        if self._groups.pop(pid, None) is not None:
            self.restart_dead_reaper()
            self._send_groups()

    def close(self) -> None:
        """Let the reaper end the children that still run, and itself. Calling it twice does no harm."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._reaper.wait()
            self._pipe = -1
