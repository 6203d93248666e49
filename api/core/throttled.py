"""Answers that are worth keeping for some seconds: many may ask, and one thread at a time finds out."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Throttled(Generic[T]):
    """The value of `find`, found out anew at most every `seconds`.

    While one thread finds it out the others get the value of before; the first ones wait for it.
    """

    def __init__(self, find: Callable[[], T], seconds: float) -> None:
        self._find = find
        self._seconds = seconds
        self._turn = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Find the value out again at the next call."""
        self._kept: tuple[float, T] | None = None

    def value(self) -> T:
        """The value as of some seconds ago at most, or as of before where somebody is finding it out."""
        kept = self._kept
        if kept is not None and (self._is_fresh(kept[0]) or not self._turn.acquire(blocking=False)):
            return kept[1]
        if kept is None:
            self._turn.acquire()
        try:
            if self._kept is not None and self._is_fresh(self._kept[0]):  # whoever had the turn before
                return self._kept[1]
            value = self._find()
            self._kept = time.monotonic(), value
            return value
        finally:
            self._turn.release()

    def _is_fresh(self, found_at: float) -> bool:
        return time.monotonic() - found_at < self._seconds
