"""Accounts that call the service: a study's back end (client), its researchers and its admins."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import CheckConstraint, delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Id, Instant, StudyId
from models.core.declarations import Export, means

ROLES = ("client", "researcher", "admin")
UNTIL = " until "  # between the name and the end of an account that another one replaced


class Client(Base):
    """A name with an Argon2id hash and one role in one study."""

    __tablename__ = "clients"
    __rights__ = "INSERT"
    __export__ = Export.WITHHELD
    __table_args__ = (CheckConstraint(f"role IN {ROLES}", name="role"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    name: Mapped[str] = mapped_column(
        unique=True, info=means("the account's name, which its bearer logs in with")
    )
    password_hash: Mapped[str] = mapped_column(info=means("Argon2id hash of the password", secret=True))
    role: Mapped[str] = mapped_column(info=means("what the account may do"))
    disabled: Mapped[bool] = mapped_column(
        server_default="false", info=means("whether every call of the account is refused")
    )
    created_at: Mapped[CreatedAt]


class RevokedToken(Base):
    """A token that was logged out; kept until it would have expired anyway."""

    __tablename__ = "revoked_tokens"
    __rights__ = "INSERT, DELETE"
    __export__ = Export.WITHHELD

    jti: Mapped[str] = mapped_column(primary_key=True, info=means("id of the token"))
    study_id: Mapped[StudyId]
    expires_at: Mapped[Instant] = mapped_column(info=means("when the token would have expired anyway", "UTC"))


class Standing(NamedTuple):
    """The role of an account, and whether it or its token is refused, at this moment."""

    role: str
    disabled: bool
    revoked: bool


def by_name(session: Session, name: str) -> Client | None:
    """The account called `name` in any study, or None."""
    return session.scalars(select(Client).where(Client.name == name)).one_or_none()


def everyone(session: Session) -> list[Client]:
    """All accounts, by study and name."""
    return list(session.scalars(select(Client).order_by(Client.study_id, Client.name)))


def has_client(session: Session, study_id: int) -> bool:
    """Return whether the study's back end has registered already."""
    return bool(session.scalar(select(exists().where(Client.study_id == study_id, Client.role == "client"))))


def create(session: Session, study_id: int, name: str, password_hash: str, role: str) -> Client:
    """Return a new account. Raises IntegrityError where the name exists."""
    client = Client(study_id=study_id, name=name, password_hash=password_hash, role=role)
    session.add(client)
    session.flush()
    return client


def replace(session: Session, client: Client, password_hash: str, now: datetime) -> Client:
    """Let an account of the same name, study and role take the place of `client`.

    The old one stays, disabled and under another name: all its tokens end, and what it did stays its own.
    """
    name = client.name
    client.name, client.disabled = f"{name}{UNTIL}{now.isoformat()}", True
    session.flush()
    return create(session, client.study_id, name, password_hash, client.role)


def are_one(session: Session, client_id: int, other_id: int) -> bool:
    """Return whether two accounts are the same, or one took the other's place."""
    names = session.scalars(select(Client.name).where(Client.id.in_((client_id, other_id))))
    return len({name.partition(UNTIL)[0] for name in names}) == 1


def standing(session: Session, client_id: int, study_id: int, jti: str) -> Standing | None:
    """Return the standing of an account and its token `jti`; None where the account is not of this study."""
    revoked = exists().where(RevokedToken.jti == jti)
    row = session.execute(
        select(Client.role, Client.disabled, revoked).where(
            Client.id == client_id, Client.study_id == study_id
        )
    ).one_or_none()
    return Standing(*row) if row else None


def revoke(session: Session, study_id: int, jti: str, expires_at: datetime) -> None:
    """Refuse the token from now on. Repeating it changes nothing."""
    session.execute(
        insert(RevokedToken)
        .values(jti=jti, study_id=study_id, expires_at=expires_at)
        .on_conflict_do_nothing()
    )


def forget_expired(session: Session, now: datetime) -> None:
    """Drop revocations of tokens that are past their expiry."""
    session.execute(delete(RevokedToken).where(RevokedToken.expires_at < now))
