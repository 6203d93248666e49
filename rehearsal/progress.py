"""How far the rehearsal is: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

LINES = 10


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Give a function that says how many more of `total` are done. Writes to standard error."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit="point") as bar:
            yield lambda more: _advance(bar, more)
    else:
        yield _Lines(total, what)


def _advance(bar: "tqdm[Never]", more: int) -> None:
    bar.update(more)


class _Lines:
    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done, self.started = total, what, 0, time.monotonic()

    def __call__(self, more: int) -> None:
        """Count, and say so at each tenth of the way."""
        tenth = self.done * LINES // self.total
        self.done += more
        if self.done * LINES // self.total > tenth:
            seconds = time.monotonic() - self.started
            print(f"{self.what}: {self.done} of {self.total} ({seconds:.0f} s)", file=sys.stderr, flush=True)
