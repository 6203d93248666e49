"""A last bound on transactions, for a database that neither answers nor dies.

The server's own time-outs need a server that runs. Where it hangs (a stopped process, a dead disk, a network
that swallows packets) the driver waits for ever, and on a Unix socket not even TCP's time-outs help. A thread
therefore shuts the socket of a connection that one transaction has kept for too long: the driver reads the
end of the stream, and the caller gets the error of a database that has gone away.
"""

import contextlib
import os
import socket
import threading
import time
from typing import Any

import psycopg2
from sqlalchemy import Engine, event


def limit(engine: Engine, seconds: float) -> None:
    """Break every connection that one transaction of this process keeps for longer than `seconds`."""
    lent: dict[int, tuple[Any, float]] = {}
    lock = threading.Lock()

    @event.listens_for(engine, "checkout")
    def begin(connection: Any, record: Any, _proxy: Any) -> None:
        with lock:
            lent[id(record)] = connection, time.monotonic()

    @event.listens_for(engine, "checkin")
    def end(_connection: Any, record: Any) -> None:
        with lock:
            lent.pop(id(record), None)

    def watch() -> None:
        while True:
            time.sleep(seconds / 10)
            with lock:
                for key, (connection, since) in list(lent.items()):
                    if time.monotonic() - since > seconds:
                        del lent[key]
                        _break(connection)

    threading.Thread(target=watch, daemon=True).start()


def _break(connection: Any) -> None:
    with (
        contextlib.suppress(OSError, psycopg2.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as link,
    ):
        link.shutdown(socket.SHUT_RDWR)
