"""Valkey (or Redis), the broker, as a supervised process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.binaries import VALKEY_PACKAGE, valkey_server, within_reach
from local.process import Process

if TYPE_CHECKING:
    from pathlib import Path

    from local.os_user import Account
    from local.state import State


@dataclass(frozen=True)
class Valkey:
    """A server of our own on the Unix socket `path`."""

    path: Path

    def url(self, number: int) -> str:
        """Return Celery's address of database `number` (0 to 15)."""
        return f"redis+socket://{self.path}?virtual_host={number}"

    def ready(self) -> bool:
        """Return whether the server answers; it does not while it reads its log after a crash."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(2)
            try:
                link.connect(str(self.path))
                link.sendall(b"PING\r\n")
                return link.recv(5) == b"+PONG"
            except OSError:
                return False


def prepare_valkey(state: State, account: Account | None) -> tuple[Valkey, Process]:
    """Return the server and the process that runs it."""
    program = within_reach(valkey_server(), VALKEY_PACKAGE, account, state.root / "bin")
    server = Valkey(state.sockets(account) / "broker.sock")
    options = {
        "port": "0",
        "unixsocket": str(server.path),
        "unixsocketperm": "700",
        "dir": str(state.folder("broker", account)),
        "appendonly": "yes",
        "appendfsync": "everysec",  # a task is on the disk within a second; the sweep sends lost ones again
        "save": "",
        "maxmemory-policy": "noeviction",  # a full queue refuses new tasks rather than lose the ones it has
    }
    command = [str(program), *(word for name, value in options.items() for word in (f"--{name}", value))]
    return server, Process("broker", command, dict(os.environ), ready=server.ready, account=account)
