"""Ports of this machine's loopback address."""

from __future__ import annotations

import os
import socket

from local.errors import StackError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` (0: on any) now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: closed connections linger
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that nobody listens on, chosen by the system."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def chosen_port(variable: str, usual: int | None = None) -> int:
    """The port that `variable` of the environment names, which must be free; else `usual` or another."""
    if given := os.environ.get(variable):
        if not given.isdigit() or not 0 < int(given) < 65536:
            raise StackError(f"{variable} must be a port number from 1 to 65535, not {given!r}.")
        if not is_free(int(given)):
            raise StackError(f"Port {given} ({variable}) is in use or not allowed: choose another one.")
        return int(given)
    return usual if usual and is_free(usual) else free_port()
