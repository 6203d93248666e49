"""Encryption at rest of the few secrets that must be read back: study keys and back-end tokens."""

import functools
import hashlib
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Column, LargeBinary, MetaData, Table, select, type_coerce, update
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from settings import settings

Unreadable = InvalidToken
"""Raised for a secret that is under none of the keys in the settings."""


@functools.lru_cache(maxsize=64)
def fingerprint(value: str) -> str:
    """What tells a value of the settings from others and does not give it away: 8 bytes of scrypt, in hex.

    It is slow on purpose: who reads fingerprints must not try out what the value might be.
    """
    return hashlib.scrypt(value.encode(), salt=b"kairos fingerprint", n=2**14, r=8, p=1, dklen=8).hex()


@functools.cache
def _keys() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings().secrets_keys])


@functools.lru_cache(maxsize=1024)
def decrypt(ciphertext: bytes) -> bytes:
    """The secret under `ciphertext`. Raises Unreadable."""
    return _keys().decrypt(ciphertext)


class Encrypted(TypeDecorator[bytes]):
    """A bytes column that is ciphertext in the database and clear only in the process."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        return None if value is None else _keys().encrypt(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        return None if value is None else decrypt(bytes(value))


def encrypt_anew(session: Session, metadata: MetaData) -> int:
    """Bring every stored secret under the first key; how many there are.

    Raises Unreadable.
    """
    columns = ((table, column) for table in metadata.sorted_tables for column in table.columns)
    return sum(_rotate(session, table, column) for table, column in columns if is_encrypted(column))


def is_encrypted(column: Column[Any]) -> bool:
    """Whether the column holds ciphertext."""
    return isinstance(column.type, Encrypted)


def _rotate(session: Session, table: Table, column: Column[Any]) -> int:
    ciphertext = type_coerce(column, LargeBinary)
    found = session.execute(select(table.c.id, ciphertext).where(column.is_not(None)).with_for_update()).all()
    for row_id, old in found:
        new = type_coerce(_keys().rotate(bytes(old)), LargeBinary)
        session.execute(update(table).where(table.c.id == row_id).values({column: new}))
    return len(found)
