"""Errors of the database, by their cause: the server that is away, a race, too little time, or the caller.

The driver makes one class, OperationalError, of a server that is gone and of a statement that takes too long.
"""

import psycopg2
from sqlalchemy.exc import InterfaceError, OperationalError

DISK_FULL = "53100"
STOPS_OR_STARTS = {"57P01", "57P02", "57P03"}
READ_ONLY = "25006"  # a standby, until it takes over
CONNECTION = "08"  # the class of its errors
ROLLBACK = "40"
TOOK_TOO_LONG = {"55P03", "57014"}  # to get a lock, to run
TOO_LITTLE = "53"  # memory, connections
NO_ANSWER = (OperationalError, InterfaceError, psycopg2.OperationalError, psycopg2.InterfaceError)


def code_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that the server gave; None where it could not say anything."""
    code = getattr(getattr(error, "orig", error), "pgcode", None)
    return code if isinstance(code, str) else None


def broke_off(error: BaseException) -> bool:
    """Return whether the server died in the middle of its answer."""
    # the driver has no class and no code for that
    return type(getattr(error, "orig", error)) is psycopg2.DatabaseError and code_of(error) is None


def is_away(error: BaseException) -> bool:
    """Return whether the database is gone, stops, starts, only reads or has no space.

    It will be back, and all is as it was.
    """
    code = code_of(error)
    if code is None:
        return isinstance(error, NO_ANSWER) or broke_off(error)
    return code in {*STOPS_OR_STARTS, READ_ONLY, DISK_FULL} or code.startswith(CONNECTION)


def lost_a_race(error: BaseException) -> bool:
    """Return whether the transaction was rolled back in favour of another one."""
    return (code_of(error) or "").startswith(ROLLBACK)


def may_pass(error: BaseException) -> bool:
    """Return whether the database lacked time, memory or connections: perhaps it has them another time."""
    code = code_of(error) or ""
    return code in TOOK_TOO_LONG or code.startswith(TOO_LITTLE)
