"""Rights in the database: the owner may do everything, the service what it needs, and a reader may read.

The owner runs the migrations and the operator's commands. The service's role has no UPDATE, DELETE or
TRUNCATE on what is append-only, nor can it change a study's key. The reader sees no secret, even encrypted.
"""

from psycopg2.extensions import encrypt_password
from sqlalchemy import Column, text
from sqlalchemy.orm import Session

from models.core.base import Base, classes
from models.core.declarations import meaning
from models.core.encryption import is_encrypted

OWNED = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'studies'::regclass"
IS_OWNER = "SELECT rolsuper OR pg_has_role(oid, current_user, 'MEMBER') FROM pg_roles WHERE rolname = :role"


class UnfitRole(ValueError):
    """A role that cannot grant, or cannot be restricted: it does not exist, or is the owner's equal."""


def service_rights() -> dict[str, str]:
    """Return the rights of the service's role beside SELECT, as in GRANT, by table."""
    return {name: table.__rights__ for name, table in classes().items()}


def is_secret(column: Column[object]) -> bool:
    """Return whether the column's values stay in the database: ciphertext, and what is declared a secret."""
    return is_encrypted(column) or meaning(column).secret


def make(session: Session, role: str, password: str) -> None:
    """Let `role` log in with `password`, and create it where there is none. Raises UnfitRole.

    Only what the server would store of the password is sent to it.
    """
    _check_owner(session)
    if session.scalar(text(IS_OWNER), {"role": role}) is None:
        session.execute(text(f"CREATE ROLE {_quoted(session, role)}"))
    _check(session, role)
    driver = session.connection().connection.driver_connection
    stored = encrypt_password(password, role, driver, "scram-sha-256")
    session.execute(text(f"ALTER ROLE {_quoted(session, role)} LOGIN PASSWORD :stored"), {"stored": stored})


def grant_service(session: Session, role: str) -> int:
    """Give `role` the rights of the API and the workers alone; return how many tables. Raises UnfitRole."""
    rights = {name: f"SELECT, {more}" for name, more in service_rights().items()}
    rights["alembic_version"] = "SELECT"  # the API compares it with the migrations
    count = _grant(session, role, rights)
    session.execute(text(f"GRANT USAGE ON SEQUENCE decisions_id_seq TO {_quoted(session, role)}"))
    return count


def grant_reader(session: Session, role: str) -> int:
    """Let `role` read everything but secrets, and nothing else; return how many tables. Raises UnfitRole."""
    rights = {}
    for table in Base.metadata.sorted_tables:
        columns = [column.name for column in table.columns if not is_secret(column)]
        has_secret = len(columns) < len(table.columns)
        rights[table.name] = f"SELECT ({', '.join(columns)})" if has_secret else "SELECT"
    return _grant(session, role, rights)


def _grant(session: Session, role: str, rights: dict[str, str]) -> int:
    _check(session, role)
    quoted = _quoted(session, role)
    for table, right in rights.items():
        session.execute(text(f"REVOKE ALL ON {table} FROM {quoted}"))
        session.execute(text(f"GRANT {right} ON {table} TO {quoted}"))
    return len(rights)


def _quoted(session: Session, role: str) -> str:
    return session.connection().dialect.identifier_preparer.quote(role)


def _check_owner(session: Session) -> None:
    if not session.scalar(text(OWNED)):  # the database would merely warn
        raise UnfitRole("only the owner of the tables can grant rights on them: connect as the owner")


def _check(session: Session, role: str) -> None:
    _check_owner(session)
    is_owner = session.scalar(text(IS_OWNER), {"role": role})
    if is_owner is None:
        raise UnfitRole(f"there is no database role {role!r}: create it first")
    if is_owner:
        raise UnfitRole(f"the role {role!r} has all rights of the tables' owner: choose another one")
