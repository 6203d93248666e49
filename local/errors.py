"""The error that the command line shows to a person, in place of a traceback."""

from __future__ import annotations


class StackError(Exception):
    """The reason why the stack cannot run, as one clear sentence (log lines may follow it)."""
