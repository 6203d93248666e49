"""Health: signs of life of the service and of every part that it needs, and the running version."""

import functools
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.core import auth, broker
from api.core.endpoint import Domain, Reply
from api.core.throttled import throttled
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
    """The running release, and a digest of its source."""

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
    """Ask database, schema, broker, a worker and beat for a sign of life, at most every two seconds.

    The bearer of a token of any role gets the names of the parts that show none, in embedded mode everybody.
    """
    parts = _silent_parts.value()
    if not parts:
        return Health()
    may_know = settings().mode == "embedded"
    if not may_know:
        try:
            auth.check_standing(auth.caller(frozenset(ROLES)))
            may_know = True
        except Refusal:
            pass
        except SQLAlchemyError:
            may_know = True  # no database to ask for a revocation: the signature must do
    errors = [FieldError(field=part, message="does not answer") for part in parts]
    raise Refusal(CoreFault.UNHEALTHY, errors=errors if may_know else None)


@throttled(KEPT_SECONDS)
def _silent_parts() -> list[str]:
    """Return the names of the service's parts that do not answer."""
    revision: str | None = None
    ticked_at: datetime | None = None
    has_broker = False
    with suppress(SQLAlchemyError, OSError):
        revision = transact(
            lambda session: str(session.scalar(text("SELECT version_num FROM alembic_version")))
        )
    with suppress(*broker.AWAY):
        with broker.producer().connection() as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
        has_broker = True
    # beat cannot be asked, and no task can tell that none is sent: it leaves the time of each tick
    with suppress(SQLAlchemyError, OSError):
        ticked_at = transact(heartbeats.last, heartbeats.BEAT)
    silence = timedelta(seconds=settings().silence_seconds)
    is_answering = {
        "database": revision is not None,
        "schema": revision == _newest_revision(),
        "broker": has_broker,
        "worker": has_broker and bool(broker.producer().control.ping(timeout=1.0, limit=1)),
        "beat": ticked_at is not None and datetime.now(UTC) - ticked_at < silence,
    }
    return [part for part, answers in is_answering.items() if not answers]


@functools.cache
def _newest_revision() -> str | None:
    """Return the last of the migrations that this release brings along."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
    return ScriptDirectory.from_config(config).get_current_head()


def forget() -> None:
    """Forget the answers of another deployment."""
    _silent_parts.forget()
