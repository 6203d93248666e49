"""Exports: a whole study as files, by a job over HTTP or at once at the command line."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from flask import Response
from flask.cli import with_appcontext
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.core import broker
from api.core.auth import Caller
from api.core.cli import Command, tell
from api.core.endpoint import Domain, Reply
from api.core.errors import Fault, Refusal
from api.core.objects import send
from models.core import accounts, audit, jobs, studies
from models.core.jobs import Job
from models.core.objects import NoObject
from models.core.session import transact
from models.research import exports
from models.research.exports import Snapshot
from replay.format import writing
from version import code_version

domain = Domain("exports")
ASKED, FETCHED, WRITTEN = "export", "export download", "export at the command line"
ZIP = "application/zip"


class ExportRequested(Reply):
    """The job that writes the export."""

    job_id: int
    status_url: str


class ExportSeen(BaseModel):
    """An export: how far it is, and, once it is done, what it is.

    `sha256` is the zip's (and its ETag), `manifest_sha256` the one of its manifest, which fixes every file.
    """

    job_id: int
    state: str
    table: str | None
    rows_written: int | None
    tables_done: int | None
    tables: int | None
    bytes: int | None
    sha256: str | None
    manifest_sha256: str | None
    rows: dict[str, int] | None
    reason: str | None
    created_at: datetime
    finished_at: datetime | None


class ExportReply(Reply):
    """One export."""

    export: ExportSeen


@domain.operation("POST", "/exports", roles={"researcher", "admin"}, status=202)
def request_export(caller: Caller) -> ExportRequested:
    """Have your study exported: every table as CSV and Parquet, with a data dictionary and checksums."""
    job_id = transact(lambda session: _request(session, caller, datetime.now(UTC)))
    broker.send(exports.EXPORT, job_id)
    return ExportRequested(job_id=job_id, status_url=f"/exports/{job_id}")


def _request(session: Session, caller: Caller, now: datetime) -> int:
    job_id = exports.request(session, caller.study_id, now).id
    audit.note(session, caller.study_id, caller.client_id, ASKED, f"job {job_id}")
    return job_id


@domain.operation("GET", "/exports/<int:job_id>", roles={"researcher", "admin"}, faults=(Fault.UNKNOWN,))
def show_export(job_id: int, caller: Caller) -> ExportReply:
    """How far an export is, and its checksums once it is done."""
    return ExportReply(export=_seen(transact(lambda session: _known(session, caller, job_id))))


@domain.operation(
    "GET",
    "/exports/<int:job_id>/file",
    roles={"researcher", "admin"},
    faults=(Fault.UNKNOWN, Fault.EXPORT_UNFINISHED, Fault.EXPORT_GONE, Fault.RANGE, Fault.STORE_AWAY),
    media=ZIP,
)
def fetch_export(job_id: int, caller: Caller) -> Response:
    """The zip of an export. A download that broke off goes on with `Range` and `If-Range` (the ETag)."""
    job = transact(lambda session: _known(session, caller, job_id))
    if job.state != jobs.DONE:
        raise Refusal(Fault.EXPORT_UNFINISHED)
    result: dict[str, Any] = job.result or {}
    try:
        response = send(result["key"], f"export-{job.id}.zip", ZIP, result["sha256"])
    except (KeyError, NoObject):  # a row without a key is of an export that expired
        raise Refusal(Fault.EXPORT_GONE) from None
    about = caller.study_id, caller.client_id, FETCHED, f"job {job.id}"
    transact(lambda session: audit.note(session, *about))
    return response


def _known(session: Session, caller: Caller, job_id: int) -> Job:
    job = exports.of_study(session, caller.study_id, job_id)
    if job is None:
        raise Refusal(Fault.UNKNOWN)
    return job


def _seen(job: Job) -> ExportSeen:
    result: dict[str, Any] = job.result or {}
    told = {name: result.get(name) for name in ExportSeen.model_fields if name not in Job.__table__.columns}
    return ExportSeen(
        **told | {"job_id": job.id},
        state=job.state,
        reason=job.reason,
        created_at=job.created_at,
        finished_at=job.finished_at,
    )


@click.command("export", cls=Command)
@click.argument("study")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--account", required=True, help="In whose name the audit notes the export.")
@with_appcontext
def command(study: str, folder: Path, account: str) -> None:
    """Write the export of STUDY into FOLDER, which must be empty or missing. A closed study's has its key."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise click.ClickException(f"{folder} is not empty")
        manifest = transact(lambda session: _write(session, study, folder, account))
        digest = writing.sha256(folder / writing.MANIFEST)
        transact(lambda session: _seal(session, study, account, digest))
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    rows = {name: table["rows"] for name, table in manifest["tables"].items()}
    tell(study=study, folder=str(folder), rows=rows, manifest_sha256=digest)


def _seal(session: Session, study: str, account: str, digest: str) -> None:
    """Note the manifest's checksum, which cannot stand in the export itself."""
    found, client = studies.by_name(session, study), accounts.by_name(session, account)
    if found is not None and client is not None:
        told = {"manifest_sha256": digest}
        audit.note(session, found.id, client.id, exports.SEALED, WRITTEN, after=told, role=audit.OPERATOR)


def _write(session: Session, name: str, folder: Path, account: str) -> dict[str, Any]:
    for path in folder.iterdir():  # of a try that was run again
        path.unlink()
    study = studies.by_name(session, name)
    client = accounts.by_name(session, account)
    if study is None:
        raise click.ClickException(f"there is no study {name!r}")
    if client is None or client.study_id != study.id or client.role == "client":
        raise click.ClickException(f"there is no account {account!r} of a researcher or admin in {name!r}")
    key = "with the study's key" if study.closed_at else "without the key"
    audit.note(session, study.id, client.id, WRITTEN, key, role=audit.OPERATOR)
    source = Snapshot(session, study, exports.now(session))
    return writing.write(folder, source, code_version(), lambda _table, _rows: None)
