"""A last bound on waiting for another end that neither answers nor dies.

A database's own time-outs need a server that runs, and time-outs of single reads let a back end drip for
ever. Where the other end hangs (a stopped process, a dead disk, a network that swallows packets) the driver
waits, and on a Unix socket not even TCP's time-outs help. A thread therefore shuts the socket of what has
taken too long: whoever reads meets the end of the stream, and gets the error of a server that has gone away.
"""

import contextlib
import os
import socket
import threading
import time
from typing import Any

import psycopg2


class Watch:
    """Shuts the sockets of what takes longer than `seconds`, in one thread of this process."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._begun: dict[int, tuple[Any, float]] = {}
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self, key: int, connection: Any) -> None:
        """Let time run for `connection`, which has a method fileno()."""
        with self._lock:
            self._begun[key] = connection, time.monotonic()

    def end(self, key: int) -> bool:
        """Stop the time of `key`; return whether it was in time."""
        with self._lock:
            return self._begun.pop(key, None) is not None

    def _look(self) -> None:
        while True:
            time.sleep(self._seconds / 10)
            with self._lock:
                for key, (connection, since) in list(self._begun.items()):
                    if time.monotonic() - since > self._seconds:
                        del self._begun[key]
                        _break(connection)


def _break(connection: Any) -> None:
    with (
        contextlib.suppress(OSError, psycopg2.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as link,
    ):
        link.shutdown(socket.SHUT_RDWR)
