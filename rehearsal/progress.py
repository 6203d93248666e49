"""The progress of the rehearsal: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

LINES = 10


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of points just done; show their sum of `total` on stderr."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit="point") as bar:
            yield bar.update
    else:
        yield _Lines(total, label)


class _Lines:
    """A counter that writes a line at each tenth of the way."""

    def __init__(self, total: int, label: str) -> None:
        self.total, self.label, self.done, self.started = total, label, 0, time.monotonic()

    def __call__(self, more: int) -> None:
        tenth = self.done * LINES // self.total
        self.done += more
        if self.done * LINES // self.total > tenth:
            seconds = time.monotonic() - self.started
            print(f"{self.label}: {self.done} of {self.total} ({seconds:.0f} s)", file=sys.stderr, flush=True)
