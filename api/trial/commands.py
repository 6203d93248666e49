"""The commands of trials: studies and their protocols."""

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import click
from sqlalchemy.orm import Session

from algorithm.trial import protocol as protocol_documents
from algorithm.trial.protocol import Protocol, ProtocolError
from api.core import accounts
from api.core.cli import Commands, name, named_study, print_json
from api.core.endpoint import unique
from api.core.fields import zone
from models.core import studies
from models.core.session import transact
from models.trial import protocols
from services.trial import studies as service
from settings import settings

LARGEST_FILE = 2**20
study_commands = Commands("study", help="Studies of this deployment.")
protocol_commands = Commands("protocol", help="Protocols as files.")


def from_file(path: Path) -> Protocol:
    """Read the protocol in a file. Raises ClickException."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise click.ClickException(f"{path} is too large for a protocol")
        return protocol_documents.load(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique))
    except ProtocolError as error:
        raise click.ClickException(f"{path}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path} is no JSON document: {error}") from None


def _assigned(assignments: tuple[str, ...], document: dict[str, Any]) -> dict[str, Any]:
    """Return `document` with each section.key=value put in; values are JSON, or text where they are not."""
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        *sections, key = path.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise click.ClickException(f"--set {path}: {section} is a value already")
        if not separator or not key:
            raise click.ClickException(f"--set takes KEY=VALUE, not {assignment!r}")
        try:
            place[key] = json.loads(value)
        except ValueError:
            place[key] = value
    return document


def _zone(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return zone(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is {error}") from None


def _url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        url = urlsplit(value)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter(f"{value!r} is not an http:// or https:// URL")
    if url.scheme == "http" and settings().mode == "production":
        raise click.BadParameter("production asks back ends over https:// alone")
    return value


@study_commands.command("list")
def list_studies() -> None:
    """List the studies of this deployment."""

    def read(session: Session) -> list[dict[str, object]]:
        return [
            {"study": study.name, "paused": study.paused, "study_key_sha256": study.study_key_sha256}
            for study in studies.everyone(session)
        ]

    print_json(studies=transact(read))


@study_commands.command("registration-token")
@click.argument("name")
def registration_token(name: str) -> None:
    """Print what clients of study NAME register with. Whoever has it can make accounts there."""
    if settings().registration != "token":
        raise click.ClickException("only KAIROS_REGISTRATION=token lets clients in by a token")
    transact(named_study, name)
    print_json(study=name, registration_token=accounts.registration_token(name))


@study_commands.command("create")
@click.argument("name", callback=name)
@click.option(
    "--ema-url", required=True, callback=_url, help="Where the study's back end answers for survey data."
)
@click.option("--protocol", "protocol_name", help="A protocol by its name; miwaves where nothing is said.")
@click.option(
    "--protocol-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The protocol in a file, as `protocol export` writes it.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A protocol value, by dotted key."
)
@click.option("--timezone", default="UTC", show_default=True, callback=_zone)
@click.option(
    "--ema-timezone", default="UTC", show_default=True, callback=_zone, help="Of naive times in survey data."
)
@click.option("--author", default="command line", show_default=True)
def create(
    name: str,
    ema_url: str,
    protocol_name: str | None,
    protocol_file: Path | None,
    assignments: tuple[str, ...],
    timezone: str,
    ema_timezone: str,
    author: str,
) -> None:
    """Create study NAME with its protocol, its key and its prior policy.

    The back end's bearer token is read from the environment variable KAIROS_EMA_TOKEN.
    """
    if protocol_file is not None:
        if protocol_name or assignments:
            raise click.ClickException(
                "--protocol-file is a whole protocol: no --protocol or --set beside it"
            )
        protocol = from_file(protocol_file)
    else:
        try:
            protocol = protocol_documents.load(
                _assigned(assignments, {"protocol": protocol_name or "miwaves"})
            )
        except ProtocolError as error:
            raise click.ClickException(str(error)) from None
    token = os.environ.get("KAIROS_EMA_TOKEN", "")
    if not re.fullmatch("[!-~]*", token):  # refused here, or each window would fail by it later
        raise click.ClickException("KAIROS_EMA_TOKEN must be printable ASCII without spaces or line breaks")
    columns = {
        "name": name,
        "ema_url": ema_url,
        "ema_token": token.encode() or None,
        "timezone": timezone,
        "ema_timezone": ema_timezone,
        "nightly_on": datetime.now(ZoneInfo(timezone)).date(),
    }

    def add(session: Session) -> str:
        if studies.by_name(session, name) is not None:
            raise click.ClickException(f"there is a study {name!r} already")
        return service.create(session, protocol, author, columns).study_key_sha256

    print_json(study=name, study_key_sha256=transact(add), protocol_hash=protocol.digest)


@protocol_commands.command("export")
@click.argument("study")
@click.option("--version", type=int, help="Another version than the one in force.")
def export(study: str, version: int | None) -> None:
    """Print the protocol of STUDY: a file that another study can be created from."""

    def read(session: Session) -> dict[str, Any]:
        row = named_study(session, study)
        number = row.protocol_version if version is None else version
        for stored in protocols.listed(session, row.id):
            if stored.version == number:
                return stored.document
        raise click.ClickException(f"the protocol of {study!r} has no version {number}")

    click.echo(json.dumps(transact(read), indent=2))


@protocol_commands.command("check")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say whether FILE is a protocol, and its hash; what is wrong with it is named by its key."""
    protocol = from_file(file)
    print_json(protocol=protocol.design.name, algorithm=protocol.algorithm, protocol_hash=protocol.digest)
