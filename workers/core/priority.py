"""Priority: a worker's fit may take every idle processor, but none that a call needs.

Niceness alone is not enough on Linux, for two reasons. Linux may share the processors among sessions first,
and niceness then counts only within a session (sched(7), "The autogroup feature"); the API is another session
than the workers, and so is each process of PostgreSQL. And a running process keeps its turn even when a less
nice one wakes up, unless that one asks for shorter turns (sched_setattr(2), since Linux 6.12).
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
TURN_NANOSECONDS = 100_000_000  # the longest turn that Linux grants; others take some 2 ms
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number: neither Python nor every C library has a function for it."""
ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # struct sched_attr, first version
TRIES = 20
PAUSE = 0.1  # seconds, in which the kernel takes one change from a user who is not root


def give_way() -> None:
    """Lower the priority of a worker's child process, at its start and before it connects to the database.

    1. The process itself becomes nicer and takes long turns.
    2. Its session is lowered, if that is the worker's own.
    3. So is each process of PostgreSQL that comes to serve it on this machine.
    """
    take_long_turns(os.nice(NICENESS))
    if os.getsid(0) == os.getppid():  # the session of a shell has other programs in it
        lower_session(os.getpid())
    event.listen(engine(), "connect", lower_server)


def take_long_turns(niceness: int) -> None:
    """Ask for the longest turns for this process; systems other than Linux do without."""
    number = SCHED_SETATTR.get(platform.machine()) if platform.system() == "Linux" else None
    if number is not None:
        attributes = ATTRIBUTES.pack(ATTRIBUTES.size, os.SCHED_OTHER, 0, niceness, 0, TURN_NANOSECONDS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def lower_session(pid: int) -> None:
    """Lower the session of a process, where the kernel shares by sessions and lets this process do it."""
    for _ in range(TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))
        except BlockingIOError:
            time.sleep(PAUSE)
        except OSError:
            return
        else:
            return


def lower_server(connection: Any, _record: Any) -> None:
    """Lower the session of the PostgreSQL process that serves a new connection, if it is on this machine.

    It works for the same fit as this process, and is a session of its own.
    """
    if not hasattr(socket, "SO_PEERCRED"):  # on another system than Linux
        return
    with socket.socket(fileno=os.dup(connection.info.socket)) as link:
        credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    # the process that made the Unix socket, PostgreSQL's first one; 0 where this is no Unix socket
    server = struct.unpack("3i", credentials)[0]
    backend = connection.info.backend_pid
    if server and parent(backend) == server:  # the process ids of another machine mean nothing here
        lower_session(backend)


def parent(pid: int) -> int:
    """Return the id of a process's parent; 0 where there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(line.rpartition(")")[2].split()[1])  # before ")" stands the process's name, with any character
