"""Back-off: how long a piece of work waits before it is tried again, and how often it is tried.

Pure; the caller multiplies by chance where many must not come back at once.
"""

import math
from typing import NamedTuple

MOST_DOUBLINGS = 20


class Ladder(NamedTuple):
    """The tries that a piece of work gets, and the longest pause between two of them in seconds."""

    tries: int
    longest: float = math.inf


LADDERS = {
    "job": Ladder(tries=6, longest=600.0),  # for which the database takes too long, or whose worker dies
    "back end": Ladder(tries=6),  # an ingest, soon; then it waits for the slow schedule
    "back end, slowly": Ladder(tries=30),  # an ingest, in all
    "notification": Ladder(tries=12, longest=3600.0),
    "circuit": Ladder(tries=5, longest=900.0),  # failures in a row until it opens, and its longest pause
}


def backoff(failures: int, first: float, longest: float = math.inf) -> float:
    """The pause in seconds after so many failures: none, then `first`, doubled by each further failure."""
    if failures <= 0:
        return 0.0
    return min(longest, first * 2.0 ** min(failures - 1, MOST_DOUBLINGS))
