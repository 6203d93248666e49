"""One JSON object a line, on standard error, from every process; it names no person and no secret."""

import logging
import sys
from traceback import extract_tb

import orjson
import structlog


def _encoded(event: dict[str, object], **_options: object) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


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


def as_json() -> None:
    """Let this process log so."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_encoded),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
