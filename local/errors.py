"""The one error of this package that a person is meant to read."""

from __future__ import annotations


class StackError(Exception):
    """What keeps the stack from running, as one clear sentence (log lines may follow it)."""
