"""Checks of servers that already run and that the environment names in place of the stack's own."""

from __future__ import annotations

import psycopg2

from local.errors import StackError


def check_database(url: str) -> str:
    """Return `url` after PostgreSQL has answered there. Raises StackError, never with the password."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
        raise StackError("DATABASE_URL must be a postgresql:// address.")
    try:
        psycopg2.connect(f"postgresql://{rest}", connect_timeout=5).close()
    except psycopg2.OperationalError as error:
        raise StackError(f"The database of DATABASE_URL cannot be reached: {_first_line(error)}") from None
    except psycopg2.Error:
        raise StackError("DATABASE_URL is not a valid address of a PostgreSQL database.") from None
    return url


def check_broker(url: str) -> str:
    """Return `url` after Valkey or Redis has answered there. Raises StackError."""
    if url.partition("://")[0] not in {"redis", "rediss", "redis+socket"}:
        raise StackError("BROKER_URL must be a redis://, rediss:// or redis+socket:// address.")
    from kombu import Connection  # here, because it takes half a second that our own servers need not wait
    from kombu.exceptions import OperationalError

    try:
        with Connection(url, transport_options={"socket_connect_timeout": 5}) as connection:
            connection.ensure_connection(max_retries=1)
    except (OperationalError, OSError, ValueError) as error:
        raise StackError(f"The broker of BROKER_URL cannot be reached: {_first_line(error)}") from None
    return url


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
