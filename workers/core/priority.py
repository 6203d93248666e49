"""How workers give way to calls: a fit may take every idle processor, and none that a decision needs.

Niceness alone does not do it on Linux. It may share processors among sessions first, and niceness then counts
only within one of them (sched(7), "The autogroup feature"); the API is another session, and so is each of
PostgreSQL's processes. And whoever runs is left its turn before even a less nice process that wakes up gets
one, unless that asks for shorter turns (sched_setattr(2), since Linux 6.12).
"""

import ctypes
import os
import platform
import socket
import struct
import time
from pathlib import Path
from typing import Any

from sqlalchemy import event

from models.core.connections import engine

NICENESS = 10
TURN_NANOSECONDS = 100_000_000  # the longest that can be asked for; others ask for some 2 ms
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number: neither Python nor every C library has a function for it."""
ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # struct sched_attr, first version
TRIES = 20
PAUSE = 0.1  # seconds: the kernel takes one change in that time from whoever is not root


def give_way() -> None:
    """Lower this process, its session where that is the worker's own, and whoever serves it on this machine.

    For the start of a worker's child, before it connects to the database.
    """
    take_long_turns(os.nice(NICENESS))
    if os.getsid(0) == os.getppid():  # a shell's session has others in it
        lower_session(os.getpid())
    event.listen(engine(), "connect", _lower_server)


def take_long_turns(niceness: int) -> None:
    """Ask for turns of this process so long that everybody's are shorter; another system does without."""
    number = SCHED_SETATTR.get(platform.machine()) if platform.system() == "Linux" else None
    if number is not None:
        asked = ATTRIBUTES.pack(ATTRIBUTES.size, os.SCHED_OTHER, 0, niceness, 0, TURN_NANOSECONDS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, asked, 0)


def lower_session(pid: int) -> None:
    """Lower the session of a process. Where the kernel does not share by sessions, or the process is not
    ours to lower, nothing is done."""
    for _ in range(TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))
        except BlockingIOError:
            time.sleep(PAUSE)
        except OSError:
            return
        else:
            return


def _lower_server(connection: Any, _record: Any) -> None:
    """The process that serves a new connection works for the same fit, and is a session of its own."""
    server, backend = _other_end(connection.info.socket), connection.info.backend_pid
    if server and parent(backend) == server:  # another machine's numbers mean nothing here
        lower_session(backend)


def parent(pid: int) -> int:
    """Whose child a process is; 0 where there is none of that number."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(line.rpartition(")")[2].split()[1])  # what stands before is its name, be it what it may


def _other_end(descriptor: int) -> int:
    """The process that made the Unix socket which a connection came to; 0 where it is no such connection."""
    if not hasattr(socket, "SO_PEERCRED"):  # but for Linux
        return 0
    with socket.socket(fileno=os.dup(descriptor)) as connected:
        told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", told)[0])
