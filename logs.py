"""The logs of every process: one JSON object a line, on standard error, without people's names or secrets."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from traceback import extract_tb
from typing import Any

import orjson
import structlog


def _encoded(event: Mapping[str, object]) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z).decode()


def _line(logger: object, level: str, event: MutableMapping[str, Any]) -> str:
    """Return the line of an event, as structlog's only processor."""
    # one step in place of four of structlog's own processors, since every decision is logged
    whole = structlog.contextvars.merge_contextvars(logger, level, event)
    return _encoded({**whole, "level": level, "timestamp": datetime.now(UTC)})


def where(error: BaseException | None) -> list[str]:
    """Return the types and lines of an error and of its causes, outermost first, without their messages."""
    # the messages of a database or a validation error quote the values that were sent
    places: list[str] = []
    while error is not None:
        places.append(type(error).__name__)
        places += [f"{at.filename}:{at.lineno} {at.name}" for at in extract_tb(error.__traceback__)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return places


class Lines(logging.Formatter):
    """The formatter that gives the same shape to the lines of gunicorn and Celery."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; of a record with an error, the error's place without any message."""
        error = record.exc_info[1] if record.exc_info else None
        event: dict[str, object] = {
            # the message of a record with an error may quote the error's
            "event": "error" if error else record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC),
        }
        if error:
            event["error"] = where(error)
        return _encoded(event)


def standard(levels: dict[str, str], loggers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a configuration of the standard library's logging.

    levels: level by logger's name. loggers: names of the loggers that write by themselves and do not
    propagate to the root.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": Lines}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"level": "INFO", "handlers": ["lines"]},
        "loggers": {
            **{name: {"level": level} for name, level in levels.items()},
            **{name: {"level": "INFO", "handlers": ["lines"], "propagate": False} for name in loggers},
        },
    }


def as_json() -> None:
    """Let structlog write this process's logs as JSON lines."""
    structlog.configure(
        processors=[_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
