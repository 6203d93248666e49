"""Authentication: bearer tokens, the present rights of their bearers, and passwords.

Tokens are JWTs under HS256 alone. The first of the signing keys signs and all of them verify, so a key is
rotated by putting a new one in front and taking the old one away after the longest token life. A checked
signature is remembered; a token's revocation and its bearer's role are read from the database each time.
"""

import functools
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from flask import request

from models.core import accounts
from models.core.session import transact
from services.core import callers
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Fault, Refusal
from settings import settings

ALGORITHM = "HS256"
CLOCK_SKEW = timedelta(seconds=30)  # between the machines of a deployment, for `iat` alone
_hasher = PasswordHasher()
_hashing = threading.BoundedSemaphore(2)  # each hash takes 64 MiB: a flood of logins must not take them all
_waiting = threading.BoundedSemaphore(4)  # and must leave threads for decisions


def token_for(client: accounts.Client, now: datetime) -> str:
    """Return a fresh token for an account."""
    claims = {
        "sub": str(client.id),
        "study": client.study_id,
        "role": client.role,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + timedelta(hours=settings().token_hours),
    }
    return jwt.encode(claims, settings().signing_keys[0], algorithm=ALGORITHM)


@functools.lru_cache(maxsize=4096)
def _verified(token: str) -> tuple[int, int, str, datetime]:
    """Return client id, study id, jti and expiry of a token. Raises jwt.InvalidTokenError or ValueError."""
    for key in settings().signing_keys:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                leeway=CLOCK_SKEW,
                options={"require": ["sub", "study", "jti", "exp", "iat"]},
            )
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
            return int(claims["sub"]), int(claims["study"]), str(claims["jti"]), expires_at
        except jwt.InvalidSignatureError:
            continue
    raise jwt.InvalidSignatureError


def caller(
    roles: frozenset[str], missing: Fault = CoreFault.TOKEN_MISSING, invalid: Fault = CoreFault.TOKEN_INVALID
) -> Caller:
    """Return the bearer of this request's token. Raises Refusal where it is missing, malformed or invalid."""
    environ = request.environ
    header = environ.get("HTTP_AUTHORIZATION")
    if not header:
        raise Refusal(missing)
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token or " " in token:
        raise Refusal(CoreFault.TOKEN_MALFORMED)
    try:
        client_id, study_id, jti, expires_at = _verified(token)
    except (jwt.InvalidTokenError, ValueError):
        raise Refusal(invalid) from None
    if expires_at <= datetime.now(UTC):  # a remembered token may have expired since
        raise Refusal(invalid)
    environ["kairos.study_id"] = study_id
    return Caller(client_id, study_id, jti, expires_at, roles)


def check_standing(caller: Caller) -> None:
    """Let the caller in by the account's present state, in a transaction of its own. Raises Refusal."""
    transact(callers.check_standing, caller)


@contextmanager
def _a_turn() -> Iterator[None]:
    """Wait for one of the places at hashing. Raises Refusal where too many wait already."""
    if not _waiting.acquire(blocking=False):
        raise Refusal(CoreFault.TOO_MANY, "Too many logins at this moment: try again.")
    try:
        with _hashing:
            yield
    finally:
        _waiting.release()


def hashed(password: str) -> str:
    """Return the Argon2id hash of a password. Raises Refusal where too many wait for one."""
    with _a_turn():
        return _hasher.hash(password)


@functools.cache
def _nobody() -> str:
    """Return a hash that no password fits, to be compared where there is no account."""
    return _hasher.hash(secrets.token_urlsafe(16))


def matches(password_hash: str | None, password: str) -> bool:
    """Compare a password with its hash; it takes as long where there is no account (`password_hash` None).

    Raises Refusal where too many wait for the same.
    """
    with _a_turn():
        try:
            return _hasher.verify(password_hash or _nobody(), password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False
