"""Protocols: the document that a study runs by, its versions, and files of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api import amending, queue
from api.amending import Change
from api.auth import Caller
from api.cli import Commands, tell
from api.endpoint import Domain, Reply, StrictBody
from api.errors import Fault, Refusal
from api.fields import Instant, Sentence, coded
from api.files import from_file
from models import clients, jobs, studies, versions
from models.session import transact
from models.studies import ProtocolVersion

domain = Domain("protocols")
commands = Commands("protocol", help="Protocols as files.")


class NewVersion(StrictBody):
    """A protocol that is to replace the one in force, at once or at `effective_at`.

    `amendment` must be true for changes that the analysis of the trial hangs on (docs/protocol.md).
    """

    document: dict[str, Any] = coded(Fault.FIELD, examples=[{"protocol": "miwaves"}])
    reason: Sentence = coded(Fault.FIELD, examples=["the safety board asked for fewer messages"])
    effective_at: Instant | None = coded(Fault.FIELD, default=None)
    amendment: bool = coded(Fault.FIELD, default=False)


class VersionSeen(BaseModel):
    """One version of a protocol. The newest one whose `effective_at` has come is in force."""

    version: int
    protocol_hash: str
    document: dict[str, Any]
    author: str
    reason: str
    effective_at: datetime
    created_at: datetime
    in_force: bool


class VersionReply(Reply):
    """One version."""

    protocol: VersionSeen


class VersionList(Reply):
    """All versions by number; those after the one in force wait for their time."""

    protocols: list[VersionSeen]


class VersionMade(VersionReply):
    """A new version, and the refit that comes of it where nothing learnt before may serve under it."""

    job_id: int | None


@domain.operation("GET", "/study/protocol", roles={"client", "researcher", "admin"})
def show_protocol(caller: Caller) -> VersionReply:
    """The protocol in force in your study."""

    def read(session: Session) -> ProtocolVersion:
        return studies.protocol(session, studies.by_id(session, caller.study_id))

    return VersionReply(protocol=_seen(transact(read), in_force=True))


@domain.operation("GET", "/study/protocol/versions", roles={"researcher", "admin"})
def list_protocol_versions(caller: Caller) -> VersionList:
    """Every version of your study's protocol, with author and reason."""

    def read(session: Session) -> list[VersionSeen]:
        number = studies.by_id(session, caller.study_id).protocol_version
        found = versions.listed(session, caller.study_id)
        return [_seen(version, version.version == number) for version in found]

    return VersionList(protocols=transact(read))


@domain.operation(
    "PUT",
    "/study/protocol",
    roles={"admin"},
    faults=(Fault.NEEDS_AMENDMENT, Fault.PROTOCOL_SAME, Fault.PROTOCOL_WAITS, Fault.STUDY_CLOSED),
)
def change_protocol(body: NewVersion, caller: Caller) -> VersionMade:
    """Give your study a new version of its protocol. Keys that are left out take their defaults."""
    now = datetime.now(UTC)
    change = Change(body.document, body.reason, body.effective_at, body.amendment)
    made = transact(lambda session: amending.perform(session, caller.study_id, caller.client_id, change, now))
    if made.job_id is not None:
        queue.send(jobs.REFIT, made.job_id)
    return VersionMade(protocol=_seen(made.version, made.in_force), job_id=made.job_id)


def _seen(version: ProtocolVersion, in_force: bool) -> VersionSeen:
    return VersionSeen(
        version=version.version,
        protocol_hash=version.hash,
        document=version.document,
        author=version.author,
        reason=version.reason,
        effective_at=version.effective_at,
        created_at=version.created_at,
        in_force=in_force,
    )


@commands.command("export")
@click.argument("study")
@click.option("--version", type=int, help="Another version than the one in force.")
def export(study: str, version: int | None) -> None:
    """Print the protocol of STUDY: a file that another study can be created from."""
    click.echo(json.dumps(transact(lambda session: _document(session, study, version)), indent=2))


def _document(session: Session, name: str, number: int | None) -> dict[str, Any]:
    study = studies.by_name(session, name)
    if study is None:
        raise click.ClickException(f"there is no study {name!r}")
    wanted = study.protocol_version if number is None else number
    for version in versions.listed(session, study.id):
        if version.version == wanted:
            return version.document
    raise click.ClickException(f"the protocol of {name!r} has no version {wanted}")


@commands.command("change")
@click.argument("study")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--account", required=True, help="The admin in whose name this is done.")
@click.option("--reason", required=True, help="Why; kept for good.")
@click.option("--effective-at", type=click.DateTime(("%Y-%m-%dT%H:%M:%S%z",)), help="With its UTC offset.")
@click.option("--amendment", is_flag=True, help="It may change what the analysis hangs on.")
def change(
    study: str, file: Path, account: str, reason: str, effective_at: datetime | None, amendment: bool
) -> None:
    """Give STUDY the protocol in FILE as a new version. A refit that comes of it is sent by the sweep."""
    asked = Change(from_file(file).document, reason, effective_at, amendment)
    try:
        made = transact(lambda session: _change(session, study, account, asked))
    except Refusal as refusal:
        keys = ", ".join(error.field.removeprefix("document.") for error in refusal.errors or ())
        raise click.ClickException(f"{refusal.message} {keys}".strip()) from None
    tell(study=study, version=made.version.version, protocol_hash=made.version.hash, in_force=made.in_force)


def _change(session: Session, name: str, account: str, asked: Change) -> amending.Changed:
    study, client = studies.by_name(session, name), clients.by_name(session, account)
    if study is None:
        raise click.ClickException(f"there is no study {name!r}")
    if client is None or client.study_id != study.id or client.role != "admin" or client.disabled:
        raise click.ClickException(f"there is no account {account!r} of an admin in {name!r}")
    return amending.perform(session, study.id, client.id, asked, datetime.now(UTC))


@commands.command("check")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say whether FILE is a protocol, and its hash; what is wrong with it is named by its key."""
    made = from_file(file)
    tell(protocol=made.design.name, algorithm=made.algorithm, protocol_hash=made.digest)
