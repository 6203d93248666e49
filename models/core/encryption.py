"""Encryption at rest of the few secrets that must be read back: study keys and back-end tokens."""

import functools
import hashlib
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Column, LargeBinary, MetaData, select, type_coerce, update
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from settings import settings

Unreadable = InvalidToken
"""Raised for a secret that is under none of the keys in the settings."""


@functools.lru_cache(maxsize=64)
def fingerprint(value: str) -> str:
    """Return 8 bytes of scrypt, in hex, that tell a setting's value from others and do not give it away.

    It is slow on purpose: a reader of fingerprints must not try out what the value might be.
    """
    return hashlib.scrypt(value.encode(), salt=b"kairos fingerprint", n=2**14, r=8, p=1, dklen=8).hex()


@functools.cache
def _keys() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings().secrets_keys])


@functools.lru_cache(maxsize=1024)
def decrypt(ciphertext: bytes) -> bytes:
    """Return the secret under `ciphertext`. Raises Unreadable."""
    return _keys().decrypt(ciphertext)


class Encrypted(TypeDecorator[bytes]):
    """A bytes column that is ciphertext in the database and clear only in the process."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Return the ciphertext that is stored for a value."""
        return None if value is None else _keys().encrypt(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Return the value of a stored ciphertext. Raises Unreadable."""
        return None if value is None else decrypt(bytes(value))


def encrypt_anew(session: Session, metadata: MetaData) -> int:
    """Bring every stored secret under the first key; return how many there are. Raises Unreadable."""
    count = 0
    for table in metadata.sorted_tables:
        for column in filter(is_encrypted, table.columns):
            ciphertext = type_coerce(column, LargeBinary)  # as it is stored, not decrypted
            query = select(table.c.id, ciphertext).where(column.is_not(None)).with_for_update()
            for row_id, old in session.execute(query).all():
                new = type_coerce(_keys().rotate(bytes(old)), LargeBinary)
                session.execute(update(table).where(table.c.id == row_id).values({column: new}))
                count += 1
    return count


def is_encrypted(column: Column[Any]) -> bool:
    """Return whether the column holds ciphertext."""
    return isinstance(column.type, Encrypted)
