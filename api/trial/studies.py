"""Studies: what a study has come to, and its creation at the command line."""

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

from algorithm.trial import protocol
from algorithm.trial.protocol import Protocol, ProtocolError
from api.core import registration
from api.core.cli import Commands, name, tell
from api.core.endpoint import Domain, Reply
from api.core.fields import zone
from api.oversight import amending
from api.trial.files import from_file
from models.core import audit, jobs, studies
from models.core.session import transact
from models.core.studies import Study
from models.trial import answers, decisions, learning_rows, participants, policies, windows
from services.core.actor import Caller
from settings import settings

domain = Domain("studies")
commands = Commands("study", help="Studies of this deployment.")


class StudyState(Reply):
    """Counts of everything in a study. `rows` exist now, `policy_rows` are in the serving policy.

    `study_key` (in hexadecimal) is told once the study is closed.
    """

    study: str
    paused: bool
    learning_frozen: bool
    closed_at: datetime | None
    participants: int
    decisions: int
    windows: dict[str, int]
    discrepancies: int
    fallbacks: dict[str, int]
    policies: int
    policy_id: int
    rows: int
    policy_rows: int
    jobs: dict[str, int]
    protocol_hash: str
    protocol: str
    study_length: int
    study_key_sha256: str
    study_key: str | None


@domain.operation("GET", "/study", roles={"client", "researcher", "admin"})
def show_study(caller: Caller) -> StudyState:
    """Your study: how many decisions, windows, policies and jobs it has, and in which states."""
    return transact(lambda session: _state(session, studies.by_id(session, caller.study_id)))


def _state(session: Session, study: Study) -> StudyState:
    version = studies.protocol(session, study)
    made = protocol.stored(version.document, version.hash)
    fallbacks = decisions.fallback_counts(session, study.id)
    serving = policies.numbered(session, study.id, study.policy_id)
    return StudyState(
        study=study.name,
        paused=study.paused,
        learning_frozen=study.learning_frozen,
        closed_at=study.closed_at,
        participants=participants.count(session, study.id),
        decisions=sum(fallbacks.values()),
        windows={"ended": 0, "ingested": 0, "failed": 0, "missed": 0} | windows.counts(session, study.id),
        discrepancies=answers.discrepancy_count(session, study.id),
        fallbacks=fallbacks,
        policies=policies.count(session, study.id),
        policy_id=study.policy_id,
        rows=learning_rows.possible(
            session, study.id, made.schedule.outcome_lag, made.design.feature_version
        ),
        policy_rows=serving.row_count if serving else 0,
        jobs={"queued": 0, "running": 0, "done": 0, "failed": 0} | jobs.counts(session, study.id),
        protocol_hash=version.hash,
        protocol=made.design.name,
        study_length=made.schedule.study_length,
        study_key_sha256=study.study_key_sha256,
        study_key=bytes(study.study_key).hex() if study.closed_at else None,
    )


def _assigned(assignments: tuple[str, ...], document: dict[str, Any]) -> dict[str, Any]:
    """`document` with each section.key=value put in; values are JSON, or text where they are not."""
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


def _protocol(name: str | None, file: Path | None, assignments: tuple[str, ...]) -> Protocol:
    if file is not None:
        if name or assignments:
            raise click.ClickException(
                "--protocol-file is a whole protocol: no --protocol or --set beside it"
            )
        return from_file(file)
    name = name or "miwaves"
    try:
        return protocol.load(_assigned(assignments, {"protocol": name}))
    except ProtocolError as error:
        raise click.ClickException(str(error)) from None


def _zone(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return zone(value)
    except ValueError as wrong:
        raise click.BadParameter(f"{value!r} is {wrong}") from None


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


def _token(given: str) -> bytes | None:
    """What goes out in a header: whoever typed it hears of a wrong one now, and not each window later."""
    if not re.fullmatch("[!-~]*", given):
        raise click.ClickException("KAIROS_EMA_TOKEN must be printable ASCII without spaces or line breaks")
    return given.encode() or None


@commands.command("list")
def list_studies() -> None:
    """List the studies of this deployment."""

    def read(session: Session) -> list[dict[str, object]]:
        return [
            {"study": study.name, "paused": study.paused, "study_key_sha256": study.study_key_sha256}
            for study in studies.everyone(session)
        ]

    tell(studies=transact(read))


@commands.command("registration-token")
@click.argument("name")
def registration_token(name: str) -> None:
    """Print what clients of study NAME register with. Whoever has it can make accounts there."""
    if settings().registration != "token":
        raise click.ClickException("only KAIROS_REGISTRATION=token lets clients in by a token")
    if transact(lambda session: studies.by_name(session, name)) is None:
        raise click.ClickException(f"there is no study {name!r}")
    tell(study=name, registration_token=registration.token_of(name))


@commands.command("create")
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
    made = _protocol(protocol_name, protocol_file, assignments)
    columns = {
        "name": name,
        "ema_url": ema_url,
        "ema_token": _token(os.environ.get("KAIROS_EMA_TOKEN", "")),
        "timezone": timezone,
        "ema_timezone": ema_timezone,
        "nightly_on": datetime.now(ZoneInfo(timezone)).date(),
    }

    def add(session: Session) -> str:
        if studies.by_name(session, name) is not None:
            raise click.ClickException(f"there is a study {name!r} already")
        return _create(session, made, author, columns)

    tell(study=name, study_key_sha256=transact(add), protocol_hash=made.digest)


def _create(session: Session, made: Protocol, author: str, columns: dict[str, Any]) -> str:
    study = studies.create(session, **columns)
    version = studies.add_protocol(
        session, study.id, study.protocol_version, amending.written(made), author, "the study begins"
    )
    policies.add(session, study.id, *amending.prior(study, version, made), [], {})
    _note(session, study, author)
    return study.study_key_sha256


def _note(session: Session, study: Study, author: str) -> None:
    """The first row of the study's audit: what it began with, and the hash of its key."""
    names = (
        "name",
        "timezone",
        "ema_timezone",
        "study_key_sha256",
        "protocol_version",
        "policy_id",
    )
    after = {name: getattr(study, name) for name in names}
    after |= {"protocol_hash": studies.protocol(session, study).hash, "author": author}
    after["ema_host"] = urlsplit(study.ema_url).hostname  # the rest of the address may hold a password
    audit.note(
        session, study.id, None, audit.CREATE_STUDY, "the study begins", after=after, role=audit.OPERATOR
    )
