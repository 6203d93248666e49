"""Loops in which the failure of one item does not keep the others from being done."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from logs import where
from models.core import db_errors
from workers.core.celery_app import log

T = TypeVar("T")


def each(things: Iterable[T], act: Callable[[T], object], event: str, name: str) -> None:
    """Call `act` on each thing, as `attempt` does, and raise the first error after the last thing."""
    errors = attempt(things, act, event, name)
    if errors:
        raise errors[0]


def attempt(things: Iterable[T], act: Callable[[T], object], event: str, name: str) -> list[Exception]:
    """Call `act` on each thing; log each error as `event`, with its thing as the field `name`; return them.

    Raises at once an error that all other things would meet too: a database that is away, a time limit.
    """
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
