"""Accounts: registration, login and logout over HTTP, and their upkeep at the command line."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click
from flask import Response
from sqlalchemy.orm import Session

from api.core import auth, login_limits, registration
from api.core.cli import Commands, name, tell
from api.core.endpoint import Body, Domain, Reply
from api.core.fields import NewPassword, Printable, coded
from models.core import accounts, audit, studies
from models.core.accounts import ROLES, Client
from models.core.session import transact
from models.core.studies import Study
from services.core import actor
from services.core.actor import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from settings import settings

domain = Domain("clients")
commands = Commands("client", help="Accounts that call the service.")


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
    with login_limits.one_try(body.api_user):
        _check_policy(body)
        password_hash = auth.hashed(body.api_pass)
        client = transact(lambda session: _add(session, body, password_hash))
    return Token(auth_token=auth.token_for(client, datetime.now(UTC)))


def _check_policy(body: Newcomer) -> None:
    policy = settings().registration
    if policy == "closed":
        raise Refusal(CoreFault.REGISTRATION_CLOSED)
    if policy == "token" and not registration.admits(_name(body), body.registration_token):
        raise Refusal(CoreFault.REGISTRATION_CLOSED, "The study's registration_token is needed.")


def _name(body: Newcomer) -> str:
    """Of the study that is meant, which need not exist: without its token nobody learns that."""
    return body.study or transact(lambda session: _study(session, None).name)


def _add(session: Session, body: Newcomer, password_hash: str) -> Client:
    """Who registers at the same time waits for the note, runs again and finds this account."""
    study = _study(session, body.study)
    if accounts.by_name(session, body.api_user) is not None:
        raise Refusal(CoreFault.NAME_TAKEN)
    if settings().registration == "first" and accounts.has_client(session, study.id):
        raise Refusal(CoreFault.REGISTRATION_CLOSED)
    client = accounts.create(session, study.id, body.api_user, password_hash, "client")
    why = f"registered ({settings().registration})"
    audit.note(session, study.id, client.id, audit.CREATE_ACCOUNT, why, after=_shown(client))
    return client


def _shown(client: Client) -> dict[str, Any]:
    return {"client_id": client.id, "role": client.role, "disabled": client.disabled}


def _study(session: Session, name: str | None) -> Study:
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
        client = transact(lambda session: accounts.by_name(session, body.api_user))
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
    transact(lambda session: _revoke(session, caller))
    return LoggedOut()


def _revoke(session: Session, caller: Caller) -> None:
    actor.check_standing(session, caller, invalid=CoreFault.LOGOUT_INVALID)
    accounts.forget_expired(session, datetime.now(UTC))
    accounts.revoke(session, caller.study_id, caller.jti, caller.expires_at)


@commands.command("create")
@click.argument("name", callback=name)
@click.option("--study", required=True, help="Name of the study.")
@click.option("--role", type=click.Choice(ROLES), required=True)
def create(name: str, study: str, role: str) -> None:
    """Create an account NAME and print its password, once."""
    password, password_hash = _new_password()

    def add(session: Session) -> None:
        found = studies.by_name(session, study)
        if found is None:
            raise click.ClickException(f"there is no study {study!r}")
        if accounts.by_name(session, name) is not None:
            raise click.ClickException(f"there is an account {name!r} already")
        client = accounts.create(session, found.id, name, password_hash, role)
        _note(session, client, audit.CREATE_ACCOUNT, None)

    transact(add)
    tell(name=name, role=role, study=study, password=password)


def _new_password() -> tuple[str, str]:
    """A random password and its hash."""
    password = secrets.token_urlsafe(18)
    return password, auth.hashed(password)


@commands.command("list")
@click.option("--study", help="Name of the study; all where it is left out.")
def list_clients(study: str | None) -> None:
    """List the accounts with their roles."""

    def read(session: Session) -> list[dict[str, object]]:
        names = {found.id: found.name for found in studies.everyone(session)}
        if study is not None and study not in names.values():
            raise click.ClickException(f"there is no study {study!r}")
        return [
            {
                "name": client.name,
                "study": names[client.study_id],
                "role": client.role,
                "disabled": client.disabled,
            }
            for client in accounts.everyone(session)
            if study in {None, names[client.study_id]}
        ]

    tell(clients=transact(read))


@commands.command("disable")
@click.argument("name")
def disable(name: str) -> None:
    """Refuse account NAME and all its tokens from now on."""
    _change(name, disabled=True)
    tell(name=name, disabled=True)


@commands.command("enable")
@click.argument("name")
def enable(name: str) -> None:
    """Let a disabled account NAME in again."""
    _change(name, disabled=False)
    tell(name=name, disabled=False)


@commands.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
def role(name: str, role: str) -> None:
    """Give account NAME another ROLE, also under the tokens it has."""
    _change(name, role=role)
    tell(name=name, role=role)


@commands.command("password")
@click.argument("name")
def password(name: str) -> None:
    """Give account NAME a new random password, print it once, and end all its tokens."""
    new, password_hash = _new_password()

    def replace(session: Session) -> None:
        old = _known(session, name)
        before = _shown(old)
        _note(
            session,
            accounts.replace(session, old, password_hash, datetime.now(UTC)),
            audit.RESET_PASSWORD,
            before,
        )

    transact(replace)
    tell(name=name, password=new)


def _known(session: Session, name: str) -> Client:
    client = accounts.by_name(session, name)
    if client is None:
        raise click.ClickException(f"there is no account {name!r}")
    return client


def _change(name: str, **columns: object) -> None:
    def change(session: Session) -> None:
        client = _known(session, name)
        before = _shown(client)
        for column, value in columns.items():
            setattr(client, column, value)
        if _shown(client) != before:
            _note(session, client, audit.CHANGE_ACCOUNT, before)

    transact(change)


def _note(session: Session, client: Client, act: str, before: Mapping[str, Any] | None) -> None:
    """What was done to an account at the command line."""
    why, after = "at the command line", _shown(client)
    audit.note(session, client.study_id, None, act, why, None, before, after, audit.OPERATOR)
