"""The commands of the machinery: accounts, rights in the database, and the dump of all tables."""

import csv
import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.core import auth
from api.core.accounts import shown
from api.core.cli import Command, Commands, name, named_study, print_json
from models.core import accounts, audit, grants, studies
from models.core.accounts import ROLES, Client
from models.core.acts import CoreAct
from models.core.audit import OPERATOR, Actor
from models.core.base import Base
from models.core.grants import is_secret
from models.core.session import transact

clients = Commands("client", help="Accounts that call the service.")
database = Commands("database", help="Rights in the database; run these as the owner of its tables.")


@clients.command("create")
@click.argument("name", callback=name)
@click.option("--study", required=True, help="Name of the study.")
@click.option("--role", type=click.Choice(ROLES), required=True)
def create(name: str, study: str, role: str) -> None:
    """Create an account NAME and print its password, once."""
    password, password_hash = _new_password()

    def add(session: Session) -> None:
        study_id = named_study(session, study).id
        if accounts.by_name(session, name) is not None:
            raise click.ClickException(f"there is an account {name!r} already")
        client = accounts.create(session, study_id, name, password_hash, role)
        _note(session, client, CoreAct.CREATE_ACCOUNT, None)

    transact(add)
    print_json(name=name, role=role, study=study, password=password)


def _new_password() -> tuple[str, str]:
    """Return a random password and its hash."""
    password = secrets.token_urlsafe(18)
    return password, auth.hashed(password)


@clients.command("list")
@click.option("--study", help="Name of the study; all where it is left out.")
def list_clients(study: str | None) -> None:
    """List the accounts with their roles."""

    def read(session: Session) -> list[dict[str, object]]:
        names = {study.id: study.name for study in studies.everyone(session)}
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

    print_json(clients=transact(read))


@clients.command("disable")
@click.argument("name")
def disable(name: str) -> None:
    """Refuse account NAME and all its tokens from now on."""
    _change(name, disabled=True)
    print_json(name=name, disabled=True)


@clients.command("enable")
@click.argument("name")
def enable(name: str) -> None:
    """Let a disabled account NAME in again."""
    _change(name, disabled=False)
    print_json(name=name, disabled=False)


@clients.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
def role(name: str, role: str) -> None:
    """Give account NAME another ROLE, also under the tokens it has."""
    _change(name, role=role)
    print_json(name=name, role=role)


@clients.command("password")
@click.argument("name")
def password(name: str) -> None:
    """Give account NAME a new random password, print it once, and end all its tokens."""
    new, password_hash = _new_password()

    def replace(session: Session) -> None:
        account = _named_account(session, name)
        before = shown(account)
        replacement = accounts.replace(session, account, password_hash, datetime.now(UTC))
        _note(session, replacement, CoreAct.RESET_PASSWORD, before)

    transact(replace)
    print_json(name=name, password=new)


def _named_account(session: Session, name: str) -> Client:
    client = accounts.by_name(session, name)
    if client is None:
        raise click.ClickException(f"there is no account {name!r}")
    return client


def _change(name: str, **columns: object) -> None:
    """Set columns of the account of this name, and note a change in the audit. Raises ClickException."""

    def change(session: Session) -> None:
        client = _named_account(session, name)
        before = shown(client)
        for column, value in columns.items():
            setattr(client, column, value)
        if shown(client) != before:
            _note(session, client, CoreAct.CHANGE_ACCOUNT, before)

    transact(change)


def _note(session: Session, client: Client, act: CoreAct, before: Mapping[str, Any] | None) -> None:
    """Note an act on an account in the audit."""
    actor = Actor(client.study_id, role=OPERATOR)
    audit.note(session, actor, act, "at the command line", before=before, after=shown(client))


@database.command("grant")
@click.option("--app", "service", metavar="ROLE", help="The role that API, workers and beat connect as.")
@click.option("--reader", metavar="ROLE", help="A role that may read everything but secrets.")
def grant(service: str | None, reader: str | None) -> None:
    """Give roles their rights, and take all others from them. Repeat it after every migration.

    The roles must exist, but for that of --app where KAIROS_APP_PASSWORD is set: it is created where there is
    none, and gets that password.
    """
    if service is None and reader is None:
        raise click.UsageError("name a role with --app, --reader or both")
    if service == reader:
        raise click.UsageError("--app and --reader must be two roles")

    def give(session: Session) -> dict[str, int]:
        tables = {}
        if service is not None:
            if password := os.environ.get("KAIROS_APP_PASSWORD"):
                grants.make(session, service, password)
            tables[service] = grants.grant_service(session, service)
        if reader is not None:
            tables[reader] = grants.grant_reader(session, reader)
        audit.note_everywhere(session, CoreAct.GRANT, {"app": service, "reader": reader})
        return tables

    try:
        print_json(tables=transact(give))
    except grants.UnfitRole as error:
        raise click.ClickException(str(error)) from None


@click.command("dump", cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@with_appcontext
def dump(folder: Path) -> None:
    """Write every table to FOLDER/<table>.csv as one consistent snapshot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        counts = transact(_write_tables, folder)
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    print_json(folder=str(folder), rows=counts)


def _write_tables(session: Session, folder: Path) -> dict[str, int]:
    """Write every table to a CSV file in the folder; return the number of rows by table. Raises OSError."""
    counts: dict[str, int] = {}
    for table in Base.metadata.sorted_tables:
        columns = [column for column in table.columns if not is_secret(column)]
        rows = session.execute(select(*columns).order_by(*table.primary_key.columns))
        counts[table.name] = 0
        with (folder / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(column.name for column in columns)
            for row in rows.yield_per(1000):  # a table may be larger than the memory
                writer.writerow(
                    json.dumps(value) if isinstance(value, dict | list) else value for value in row
                )
                counts[table.name] += 1
    return counts
