"""Protocols: the document that a study runs by, its versions, and files of it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.core.cli import Commands, tell
from api.core.endpoint import Domain, Reply, StrictBody
from api.core.fields import Instant, Sentence, coded, instant
from api.oversight import amending, operating
from api.oversight.proposing import Proposed, propose
from api.trial.files import from_file
from models.core import audit, studies
from models.core.session import transact
from models.core.studies import ProtocolVersion
from models.trial import protocols as versions
from services.core.actor import Caller
from services.core.faults import CoreFault
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault

domain = Domain("protocols")
commands = Commands("protocol", help="Protocols as files.")


class NewVersion(StrictBody):
    """A protocol that is to replace the one in force, at once or at `effective_at`.

    `amendment` must be true for changes that the analysis of the trial hangs on (docs/protocol.md).
    """

    document: dict[str, Any] = coded(CoreFault.FIELD, examples=[{"protocol": "miwaves"}])
    reason: Sentence = coded(CoreFault.FIELD, examples=["the safety board asked for fewer messages"])
    effective_at: Instant | None = coded(CoreFault.FIELD, default=None)
    amendment: bool = coded(CoreFault.FIELD, default=False)


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
    status=202,
    faults=(
        OversightFault.NEEDS_AMENDMENT,
        OversightFault.PROTOCOL_SAME,
        OversightFault.PROTOCOL_WAITS,
        OversightFault.PROTOCOL_MOVED,
        TrialFault.STUDY_CLOSED,
    ),
)
def change_protocol(body: NewVersion, caller: Caller) -> Proposed:
    """Propose a new version of your study's protocol. Keys that are left out take their defaults.

    A version that only makes the safety envelope tighter is stored at once, by one person.
    """

    def read(session: Session) -> dict[str, Any]:
        study_id = caller.study_id
        return amending.arguments(session, study_id, body.document, body.effective_at, body.amendment)

    arguments = transact(read)
    return propose(caller, audit.PROTOCOL_VERSION, arguments, body.reason)


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


def _instant(_context: click.Context, _option: click.Parameter, value: datetime | None) -> datetime | None:
    try:
        return value and instant(value)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong)) from None


@commands.command("change")
@operating.in_the_name_of
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--effective-at",
    type=click.DateTime(("%Y-%m-%dT%H:%M:%S%z",)),
    callback=_instant,
    help="With its UTC offset.",
)
@click.option("--amendment", is_flag=True, help="It may change what the analysis hangs on.")
def change(
    study: str, file: Path, account: str, reason: str, effective_at: datetime | None, amendment: bool
) -> None:
    """Propose the protocol in FILE as STUDY's next version.

    One that only makes the safety envelope tighter is stored at once, without a second person.
    """
    document = from_file(file).document

    def read(session: Session) -> dict[str, Any]:
        study_id = operating.study(session, study).id
        return amending.arguments(session, study_id, document, effective_at, amendment)

    arguments = transact(read)
    operating.propose(study, account, audit.PROTOCOL_VERSION, arguments, reason)


@commands.command("check")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say whether FILE is a protocol, and its hash; what is wrong with it is named by its key."""
    made = from_file(file)
    tell(protocol=made.design.name, algorithm=made.algorithm, protocol_hash=made.digest)
