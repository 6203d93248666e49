"""Types of settings, and what their values must look like."""

import re
from typing import Annotated

from cryptography.fernet import Fernet
from pydantic import BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "KAIROS_"
FEWEST_SYMBOLS = 10  # different ones in a key: below it somebody typed it
TYPED = ("change", "default", "example", "secret")


class AreaSettings(BaseSettings):
    """The settings of an area. Names are those of the environment, by default with the prefix KAIROS_.

    Each has a description, of which README's table is made.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True
    )


def is_typed(key: str) -> bool:
    """Whether a key looks as though somebody had typed it instead of having it made at random."""
    return len(set(key)) < FEWEST_SYMBOLS or any(word in key.lower() for word in TYPED)


def psycopg2_url(url: str) -> str:
    """A PostgreSQL URL for psycopg2. Raises ValueError.

    Hosting platforms hand out `postgres://`; SQLAlchemy would read `postgresql://` as another driver.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
        raise ValueError("must be a postgresql:// URL")
    return f"postgresql+psycopg2://{rest}"


def redis_url(url: str) -> str:
    """A Redis URL. Raises ValueError."""
    if url.partition("://")[0] not in {"redis", "rediss", "redis+socket"}:
        raise ValueError("must be a redis://, rediss:// or redis+socket:// URL")
    return url


def _listed(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def signing_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Keys that are long enough to sign with. Raises ValueError."""
    if not keys or min(map(len, keys)) < 32:
        raise ValueError("needs keys of at least 32 characters: `python -m api.core.keys new` makes one")
    return keys


def secrets_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Fernet keys. Raises ValueError."""
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        keys = ()
    if not keys:
        raise ValueError(
            "needs Fernet keys, which encrypt stored secrets: `python -m api.core.keys new` makes one"
        )
    return keys


def store_url(url: str) -> str:
    """The address of an object store: a folder or a bucket. Raises ValueError."""
    scheme, _, place = url.partition("://")
    is_folder = scheme == "file" and place.startswith("/")
    is_bucket = scheme == "s3" and re.fullmatch(
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w-][\w.-]*)*/?", place, re.ASCII
    )
    if not (is_folder or is_bucket):
        raise ValueError("must be file:///folder or s3://bucket/prefix")
    return url


def web_address(url: str) -> str:
    """An address without a slash at its end, to which paths are added. Raises ValueError."""
    if url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise ValueError("must be an http:// or https:// address")
    return url.rstrip("/")


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""Comma-separated texts."""
