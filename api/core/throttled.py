"""Answers that are kept for some seconds: many may ask for them, and one thread at a time computes them."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Throttled(Generic[T]):
    """The value of `compute`, computed anew at most every `seconds`.

    While one thread computes it the others get the last value; as long as there is none they wait.
    """

    def __init__(self, compute: Callable[[], T], seconds: float) -> None:
        self._compute = compute
        self._seconds = seconds
        self._turn = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Compute the value again at the next call."""
        self._last: tuple[float, T] | None = None

    def value(self) -> T:
        """Return the value, at most `seconds` old, or the last one while another thread computes it."""
        last = self._last
        if last is not None and (self._is_fresh(last[0]) or not self._turn.acquire(blocking=False)):
            return last[1]
        if last is None:
            self._turn.acquire()
        try:
            if self._last is not None and self._is_fresh(self._last[0]):  # by the thread before in the queue
                return self._last[1]
            value = self._compute()
            self._last = time.monotonic(), value
            return value
        finally:
            self._turn.release()

    def _is_fresh(self, computed_at: float) -> bool:
        return time.monotonic() - computed_at < self._seconds


def throttled(seconds: float) -> Callable[[Callable[[], T]], Throttled[T]]:
    """Decorate a function so that it is computed at most every `seconds`."""
    return lambda compute: Throttled(compute, seconds)
