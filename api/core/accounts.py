"""Accounts: registration, login and logout."""

import base64
import hmac
from datetime import UTC, datetime
from typing import Any

from flask import Response
from sqlalchemy.orm import Session

from api.core import auth, login_limits
from api.core.endpoint import Body, Domain, Reply
from api.core.examples import EXAMPLES
from api.core.fields import NewPassword, Printable, coded
from models.core import accounts, audit, studies
from models.core.accounts import ROLES, Client
from models.core.acts import CoreAct
from models.core.audit import Actor
from models.core.session import transact
from models.core.studies import Study
from services.core import callers
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from settings import settings

domain = Domain("accounts", __doc__, EXAMPLES)


class Newcomer(Body):
    """A study's back end that registers. `study` is needed where the deployment has several."""

    api_user: Printable = coded(CoreFault.REGISTRATION_FIELD, examples=["miwaves-app"])
    api_pass: NewPassword = coded(CoreFault.REGISTRATION_FIELD, examples=["a long random password"])
    study: Printable | None = coded(CoreFault.REGISTRATION_FIELD, default=None)
    registration_token: Printable | None = coded(CoreFault.REGISTRATION_FIELD, default=None)


class Credentials(Body):
    """Name and password."""

    api_user: Printable = coded(CoreFault.LOGIN_FIELD, examples=["miwaves-app"])
    api_pass: Printable = coded(CoreFault.LOGIN_FIELD, examples=["a long random password"])


class Token(Reply):
    """A bearer token."""

    auth_token: str


class LoggedOut(Reply):
    """The token is worth nothing from now on."""


@domain.after_request
def _keep_out_of_caches(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@domain.operation(
    "POST",
    "/auth/register",
    roles=None,
    status=201,
    faults=(
        CoreFault.NAME_TAKEN,
        CoreFault.REGISTRATION_CLOSED,
        CoreFault.REGISTRATION_FIELD,
        CoreFault.TOO_MANY,
    ),
)
def register_client(body: Newcomer) -> Token:
    """Become the client of a study, as far as the deployment's registration policy allows."""
    policy = settings().registration

    def add(session: Session, password_hash: str) -> Client:
        study = _study(session, body.study)
        if accounts.by_name(session, body.api_user) is not None:
            raise Refusal(CoreFault.NAME_TAKEN)
        if policy == "first" and accounts.has_client(session, study.id):
            raise Refusal(CoreFault.REGISTRATION_CLOSED)
        client = accounts.create(session, study.id, body.api_user, password_hash, "client")
        # another registration at the same time waits here, runs again and sees this account
        actor, reason = Actor(study.id, client.id), f"registered ({policy})"
        audit.note(session, actor, CoreAct.CREATE_ACCOUNT, reason, after=shown(client))
        return client

    with login_limits.one_try(body.api_user):
        if policy == "closed":
            raise Refusal(CoreFault.REGISTRATION_CLOSED)
        if policy == "token":
            # the study need not exist: without its token nobody learns that
            study = body.study or transact(_study, None).name
            token = (body.registration_token or "").encode()
            if not hmac.compare_digest(token, registration_token(study).encode()):  # in constant time
                raise Refusal(CoreFault.REGISTRATION_CLOSED, "The study's registration_token is needed.")
        client = transact(add, auth.hashed(body.api_pass))
    return Token(auth_token=auth.token_for(client, datetime.now(UTC)))


def registration_token(study: str) -> str:
    """Return the token that lets clients into the study of this name: base64url, without padding.

    Each study has its own, made of its name and the deployment's secret; none is stored.
    """
    secret, message = settings().registration_secret, f"registration|{study}"
    digest = hmac.digest(secret.encode(), message.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def shown(client: Client) -> dict[str, Any]:
    """Return the part of an account that the audit notes."""
    return {"client_id": client.id, "role": client.role, "disabled": client.disabled}


def _study(session: Session, name: str | None) -> Study:
    """Return the study of this name, or the deployment's only one. Raises Refusal."""
    study = studies.only(session) if name is None else studies.by_name(session, name)
    if study is None:
        raise Refusal(CoreFault.REGISTRATION_FIELD, "study must name one of this deployment's studies.")
    return study


@domain.operation(
    "POST",
    "/auth/login",
    roles=None,
    faults=(CoreFault.CREDENTIALS, CoreFault.LOGIN_FIELD, CoreFault.TOO_MANY),
)
def login(body: Credentials) -> Token:
    """A fresh token for name and password."""
    with login_limits.one_try(body.api_user):
        client = transact(accounts.by_name, body.api_user)
        # the password is hashed in any case: the time that it takes must not tell which accounts there are
        if (
            not auth.matches(client.password_hash if client else None, body.api_pass)
            or client is None
            or client.disabled
        ):
            raise Refusal(CoreFault.CREDENTIALS)
    return Token(auth_token=auth.token_for(client, datetime.now(UTC)))


@domain.operation(
    "POST",
    "/auth/logout",
    roles=None,
    reads_token=True,
    faults=(CoreFault.LOGOUT_MISSING, CoreFault.TOKEN_MALFORMED, CoreFault.LOGOUT_INVALID),
)
def logout() -> LoggedOut:
    """Revoke the token of this request."""
    caller = auth.caller(frozenset(ROLES), missing=CoreFault.LOGOUT_MISSING, invalid=CoreFault.LOGOUT_INVALID)

    def revoke(session: Session) -> None:
        callers.check_standing(session, caller, invalid=CoreFault.LOGOUT_INVALID)
        accounts.forget_expired(session, datetime.now(UTC))
        accounts.revoke(session, caller.study_id, caller.jti, caller.expires_at)

    transact(revoke)
    return LoggedOut()
