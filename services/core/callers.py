"""Callers: the bearers of tokens, and their rights at this moment."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

from models.core import accounts
from models.core.audit import Actor
from services.core.faults import CoreFault
from services.core.refusals import Fault, Refusal


class Caller(NamedTuple):
    """The bearer of a token with a valid signature; `check_standing` says whether the token still stands.

    roles: the roles that may do what is asked for.
    """

    client_id: int
    study_id: int
    jti: str
    expires_at: datetime
    roles: frozenset[str]

    @property
    def actor(self) -> Actor:
        """The account that calls, with the role that it has now."""
        return Actor(self.study_id, self.client_id)


def admit(
    caller: Caller, role: str, disabled: bool, revoked: bool, invalid: Fault = CoreFault.TOKEN_INVALID
) -> None:
    """Let the caller in by the account's present state in the database. Raises Refusal."""
    if disabled or revoked:
        raise Refusal(invalid)
    if role not in caller.roles:
        raise Refusal(CoreFault.ROLE)


def check_standing(session: Session, caller: Caller, invalid: Fault = CoreFault.TOKEN_INVALID) -> str:
    """Read the caller's standing and let it in; return its role. Raises Refusal."""
    standing = accounts.standing(session, caller.client_id, caller.study_id, caller.jti)
    if standing is None:
        raise Refusal(invalid)
    admit(caller, *standing, invalid)
    return standing.role
