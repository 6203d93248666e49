"""Is it up, which version is it, and does everything it needs answer?"""

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.core import auth, broker
from api.core.endpoint import Domain, Reply
from api.core.throttled import Throttled
from models.core import heartbeats
from models.core.accounts import ROLES
from models.core.session import transact
from services.core.faults import CoreFault
from services.core.refusals import FieldError, Refusal
from settings import settings
from version import VERSION, code_version

KEPT_SECONDS = 2.0  # anybody may ask: the parts are asked no more often
domain = Domain("health", __doc__)


class Running(Reply):
    """The process answers."""


class Version(Reply):
    """What runs: the release and a digest of its source."""

    version: str
    code_version: str


class Health(Reply):
    """Every part that the service needs answers."""


@domain.operation("GET", "/running", roles=None)
def running() -> Running:
    """Answers while the process is up, whatever else is down."""
    return Running()


@domain.operation("GET", "/version", roles=None)
def version() -> Version:
    """The release and the digest of its source that every decision carries."""
    return Version(version=VERSION, code_version=code_version())


@domain.operation("GET", "/healthcheck", roles=None, faults=(CoreFault.UNHEALTHY,))
def healthcheck() -> Health:
    """Whether database, schema, broker, a worker and beat show life, asked at most every two seconds.

    Which of them does not is told to the bearer of a token of any role, and to anybody in embedded mode.
    """
    silent = _silent.value()
    if silent:
        errors = [FieldError(field=part, message="does not answer") for part in silent]
        raise Refusal(CoreFault.UNHEALTHY, errors=errors if _may_know() else None)
    return Health()


def _may_know() -> bool:
    if settings().mode == "embedded":
        return True
    try:
        auth.check_standing(auth.caller(frozenset(ROLES)))
    except Refusal:
        return False
    except SQLAlchemyError:
        pass  # no database to tell a revocation: the signature must do
    return True


def _silent_parts() -> list[str]:
    """The parts of the service that do not answer."""
    schema, has_broker = _schema(), _has_broker()
    is_answering = {
        "database": schema is not None,
        "schema": schema == _head(),
        "broker": has_broker,
        "worker": has_broker and bool(broker.producer().control.ping(timeout=1.0, limit=1)),
        "beat": _is_beating(),
    }
    return [part for part, answers in is_answering.items() if not answers]


def _schema() -> str | None:
    try:
        return transact(lambda session: str(session.scalar(text("SELECT version_num FROM alembic_version"))))
    except (SQLAlchemyError, OSError):
        return None


def _has_broker() -> bool:
    try:
        with broker.producer().connection() as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
    except broker.AWAY:
        return False
    return True


def _is_beating() -> bool:
    """Whether beat ticked lately: it cannot be asked, and no task can tell that none is sent."""
    try:
        last = transact(lambda session: heartbeats.last(session, heartbeats.BEAT))
    except (SQLAlchemyError, OSError):
        return False
    limit = timedelta(seconds=settings().silence_seconds)
    return last is not None and datetime.now(UTC) - last < limit


@functools.cache
def _head() -> str | None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
    return ScriptDirectory.from_config(config).get_current_head()


_silent = Throttled(_silent_parts, KEPT_SECONDS)


def forget() -> None:
    """Drop what is kept of another deployment."""
    _silent.forget()
