"""Several things of which one that fails keeps none of the others from being done."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from logs import where
from models import away
from workers.app import log

T = TypeVar("T")


def each(things: Iterable[T], act: Callable[[T], object], told: str, name: str) -> None:
    """Act on each. What one met is logged as `told`, with the thing under `name`; the first is raised at the
    end, and at once what would be the same for all of them: a database that is away, a time that is over."""
    met: list[Exception] = []
    for thing in things:
        try:
            act(thing)
        except Exception as error:
            if away.is_away(error) or isinstance(error, SoftTimeLimitExceeded):
                raise
            log.error(told, **{name: thing}, error=where(error))
            met.append(error)
    if met:
        raise met[0]
