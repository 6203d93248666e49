"""Studies: the trials of a deployment, each with its settings, its key and its state."""

import hashlib
import secrets
from datetime import date
from typing import Any

from sqlalchemy import BigInteger, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Id, Instant
from models.core.declarations import Export, means
from models.core.encryption import Encrypted


class Study(Base):
    """One trial. `policy_id` numbers the policy that serves, `row_seq` the last learning row, removal
    or rebuild of the statistics.

    A closed study is a paused one that never goes on, whose key is public. nightly_on: the last night, by the
    study's own calendar, whose refit was asked for; at first the day on which the study was made.
    """

    __tablename__ = "studies"
    __rights__ = (
        "UPDATE (protocol_version, policy_id, row_seq, paused, learning_frozen, closed_at, nightly_on)"
    )
    __export__ = Export.WITHHELD  # the manifest of an export has what belongs there

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True, info=means("the study's name in the deployment"))
    timezone: Mapped[str]
    ema_timezone: Mapped[str] = mapped_column(info=means("IANA time zone of the back end's naive times"))
    ema_url: Mapped[str] = mapped_column(info=means("address of the study's back end"))
    ema_token: Mapped[bytes | None] = mapped_column(
        Encrypted, info=means("token for the study's back end, encrypted", secret=True)
    )
    study_key: Mapped[bytes] = mapped_column(
        Encrypted, info=means("key of the study's draws, encrypted", secret=True)
    )
    study_key_sha256: Mapped[str] = mapped_column(
        info=means("SHA-256 of the key, published before the first draw", "hexadecimal")
    )
    protocol_version: Mapped[int] = mapped_column(
        info=means("number of the protocol version in force", range=">= 1")
    )
    policy_id: Mapped[int] = mapped_column(
        info=means("number of the policy that serves; 0 is the prior", range=">= 0")
    )
    row_seq: Mapped[int] = mapped_column(
        BigInteger,
        server_default=text("0"),
        info=means("last learning row, removal or rebuild of the statistics", range=">= 0"),
    )
    paused: Mapped[bool] = mapped_column(
        server_default=text("false"), info=means("whether nothing is decided at present")
    )
    learning_frozen: Mapped[bool] = mapped_column(
        server_default=text("false"), info=means("whether no refit runs at present")
    )
    closed_at: Mapped[Instant | None] = mapped_column(
        info=means("when the study was closed for good; null: it is not", "UTC")
    )
    nightly_on: Mapped[date | None] = mapped_column(
        info=means("last night whose refit was asked for, by the study's calendar")
    )
    created_at: Mapped[CreatedAt]


def create(session: Session, **columns: Any) -> Study:
    """Return a new study with a fresh key for its draws; its hash can be published before the first."""
    key = secrets.token_bytes(32)
    digest = hashlib.sha256(key).hexdigest()
    study = Study(study_key=key, study_key_sha256=digest, protocol_version=1, policy_id=0, **columns)
    session.add(study)
    session.flush()
    return study


def by_name(session: Session, name: str) -> Study | None:
    """The study called `name`, or None."""
    return session.scalars(select(Study).where(Study.name == name)).one_or_none()


def only(session: Session) -> Study | None:
    """The deployment's study where it has exactly one, else None."""
    first_two = session.scalars(select(Study).limit(2)).all()
    return first_two[0] if len(first_two) == 1 else None


def everyone(session: Session) -> list[Study]:
    """All studies, oldest first."""
    return list(session.scalars(select(Study).order_by(Study.id)))


def ids(session: Session) -> list[int]:
    """Ids of all studies, oldest first; no secret is read for them."""
    return list(session.scalars(select(Study.id).order_by(Study.id)))


def locked(session: Session, study_id: int) -> Study:
    """The study's row, locked until the transaction ends: the order of rows and policies hangs on it.

    The lock lets decisions of the study pass, whose foreign keys ask for the row.
    """
    return session.scalars(select(Study).where(Study.id == study_id).with_for_update(key_share=True)).one()


def take_turn(session: Session, study_id: int) -> None:
    """Write to the study's row without changing it, so that transactions that wait for the row see our work.

    At REPEATABLE READ because they run again, where a lock alone would let them go on with a snapshot from
    before; at READ COMMITTED because each statement sees what is committed.
    """
    session.execute(update(Study).where(Study.id == study_id).values(paused=Study.paused))


def by_id(session: Session, study_id: int) -> Study:
    """The study with this id."""
    return session.get_one(Study, study_id)
