"""Caches of immutable rows, which each process keeps by their ids."""

from typing import Any

KEPT = 256


def make_room(cache: dict[Any, Any]) -> None:
    """Empty a full cache. Other threads may do so at any moment: nobody counts on what was just put in."""
    if len(cache) >= KEPT:
        cache.clear()
