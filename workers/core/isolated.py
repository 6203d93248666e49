"""Several things of which one that fails keeps none of the others from being done."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from logs import where
from models.core import db_errors
from workers.core.celery_app import log

T = TypeVar("T")


def each(things: Iterable[T], act: Callable[[T], object], event: str, name: str) -> None:
    """Act on each, as `attempt` does. Raises at the end what the first one met."""
    errors = attempt(things, act, event, name)
    if errors:
        raise errors[0]


def attempt(things: Iterable[T], act: Callable[[T], object], event: str, name: str) -> list[Exception]:
    """Act on each. What one met is logged as `event`, with the thing under `name`, and returned; raised is
    what would be the same for all of them: a database that is away, a time that is over."""
    errors: list[Exception] = []
    for thing in things:
        try:
            act(thing)
        except Exception as error:
            if db_errors.is_away(error) or isinstance(error, SoftTimeLimitExceeded):
                raise
            log.error(event, **{name: thing}, error=where(error))
            errors.append(error)
    return errors
