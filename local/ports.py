"""Ports of this machine's loopback address."""

from __future__ import annotations

import os
import socket

from local.errors import StackError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` (0: on any) now."""
    with socket.socket() as probe:
        # as servers do: otherwise connections that were just closed would keep the port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port that nobody listens on, chosen by the system."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def chosen_port(variable: str, usual: int | None = None) -> int:
    """Return the port in the environment's `variable`, else `usual` if it is free, else any free port.

    Raises StackError where the variable holds no port number, or one that is in use.
    """
    if port := os.environ.get(variable):
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise StackError(f"{variable} must be a port number from 1 to 65535, not {port!r}.")
        if not is_free(int(port)):
            raise StackError(f"Port {port} ({variable}) is in use or not allowed: choose another one.")
        return int(port)
    return usual if usual and is_free(usual) else free_port()
