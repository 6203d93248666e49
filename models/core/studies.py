"""Studies and the versions of their protocols."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, UniqueConstraint, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Document, Id, Instant, StudyId
from models.core.encryption import Encrypted


class Study(Base):
    """One trial. `policy_id` numbers the policy that serves, `row_seq` the last learning row, removal
    or rebuild of the statistics.

    A closed study is a paused one that never goes on, whose key is public. nightly_on: the last night, by the
    study's own calendar, whose refit was asked for; at first the day on which the study was made.
    """

    __tablename__ = "studies"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)
    timezone: Mapped[str]
    ema_timezone: Mapped[str]
    ema_url: Mapped[str]
    ema_token: Mapped[bytes | None] = mapped_column(Encrypted)
    study_key: Mapped[bytes] = mapped_column(Encrypted)
    study_key_sha256: Mapped[str]
    protocol_version: Mapped[int]
    policy_id: Mapped[int]
    row_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    learning_frozen: Mapped[bool] = mapped_column(server_default=text("false"))
    closed_at: Mapped[Instant | None]
    nightly_on: Mapped[date | None]
    created_at: Mapped[CreatedAt]


class ProtocolVersion(Base):
    """A protocol document as it stood, in force from `effective_at` until the next version is.

    history: how many earlier points its state looks back on. looks_back_days: how many days of sent messages
    its safety envelope looks back on.
    """

    __tablename__ = "protocols"
    __table_args__ = (UniqueConstraint("study_id", "version"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    version: Mapped[int]
    document: Mapped[Document]
    hash: Mapped[str]
    history: Mapped[int]
    looks_back_days: Mapped[int] = mapped_column(server_default="0")
    author: Mapped[str]
    reason: Mapped[str]
    effective_at: Mapped[Instant] = mapped_column(server_default=text("now()"))
    created_at: Mapped[CreatedAt]


def create(session: Session, **columns: Any) -> Study:
    """A new study with a fresh key for its draws; its hash can be published before the first."""
    key = secrets.token_bytes(32)
    digest = hashlib.sha256(key).hexdigest()
    study = Study(study_key=key, study_key_sha256=digest, protocol_version=1, policy_id=0, **columns)
    session.add(study)
    session.flush()
    return study


class Written(NamedTuple):
    """A protocol document that is to be stored; `history` and `looks_back_days` are those of its row."""

    document: Mapping[str, Any]
    hash: str
    history: int
    looks_back_days: int


def add_protocol(
    session: Session,
    study_id: int,
    version: int,
    written: Written,
    author: str,
    reason: str,
    effective_at: datetime | None = None,
) -> ProtocolVersion:
    """Store a version of the study's protocol, to come in force at `effective_at` (None: now)."""
    row = ProtocolVersion(
        study_id=study_id,
        version=version,
        document=dict(written.document),
        hash=written.hash,
        history=written.history,
        looks_back_days=written.looks_back_days,
        author=author,
        reason=reason,
    )
    if effective_at is not None:
        row.effective_at = effective_at
    session.add(row)
    session.flush()
    return row


def by_name(session: Session, name: str) -> Study | None:
    """The study called `name`, or None."""
    return session.scalars(select(Study).where(Study.name == name)).one_or_none()


def only(session: Session) -> Study | None:
    """The deployment's study where it has exactly one, else None."""
    found = session.scalars(select(Study).limit(2)).all()
    return found[0] if len(found) == 1 else None


def everyone(session: Session) -> list[Study]:
    """All studies, oldest first."""
    return list(session.scalars(select(Study).order_by(Study.id)))


def ids(session: Session) -> list[int]:
    """Ids of all studies, oldest first; no secret is read for them."""
    return list(session.scalars(select(Study.id).order_by(Study.id)))


def protocol(session: Session, study: Study) -> ProtocolVersion:
    """The version in force."""
    return session.scalars(
        select(ProtocolVersion).where(
            ProtocolVersion.study_id == study.id, ProtocolVersion.version == study.protocol_version
        )
    ).one()


def protocol_by_id(session: Session, protocol_id: int) -> ProtocolVersion:
    """A version by its id: immutable, so it may be cached."""
    return session.get_one(ProtocolVersion, protocol_id)


def locked(session: Session, study_id: int) -> Study:
    """The study's row, locked until the transaction ends: the order of rows and policies hangs on it.

    The lock lets decisions of the study pass, whose foreign keys ask for the row.
    """
    return session.scalars(select(Study).where(Study.id == study_id).with_for_update(key_share=True)).one()


def take_turn(session: Session, study_id: int) -> None:
    """Write to the study's row without changing it: whoever waits for the row sees our work.

    At REPEATABLE READ because they run again, where a lock alone would let them go on with a snapshot from
    before; at READ COMMITTED because each statement sees what is committed.
    """
    session.execute(update(Study).where(Study.id == study_id).values(paused=Study.paused))


def activate(session: Session, study_id: int, policy_id: int) -> None:
    """Let policy `policy_id` serve from the next decision on."""
    session.execute(update(Study).where(Study.id == study_id).values(policy_id=policy_id))


def by_id(session: Session, study_id: int) -> Study:
    """The study with this id."""
    return session.get_one(Study, study_id)
