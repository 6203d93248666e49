"""One JSON object a line, on standard error, from every process; it names no person and no secret."""

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
    """A line in one step: structlog's own processors would be four, and every decision is logged."""
    whole = structlog.contextvars.merge_contextvars(logger, level, event)
    return _encoded({**whole, "level": level, "timestamp": datetime.now(UTC)})


def where(error: BaseException | None) -> list[str]:
    """Types and lines of an error and of its causes, outermost first.

    Without their messages: those of a database and of a validation quote what was sent.
    """
    found: list[str] = []
    while error is not None:
        found.append(type(error).__name__)
        found += [f"{at.filename}:{at.lineno} {at.name}" for at in extract_tb(error.__traceback__)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


class Lines(logging.Formatter):
    """What gunicorn and Celery log by the standard library, in the same shape."""

    def format(self, record: logging.LogRecord) -> str:
        """One line. A record of an error has its place alone: its message quotes the error's."""
        error = record.exc_info[1] if record.exc_info else None
        event: dict[str, object] = {
            "event": "error" if error else record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC),
        }
        if error:
            event["error"] = where(error)
        return _encoded(event)


def standard(levels: dict[str, str], loggers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The standard library's configuration: `levels` of loggers, and those which must not propagate."""
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
    """Let this process log so."""
    structlog.configure(
        processors=[_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
