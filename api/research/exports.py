"""Exports: a whole study as files, by a job."""

from datetime import UTC, datetime
from typing import Any

from flask import Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.core import broker
from api.core.endpoint import Domain, Reply
from api.core.objects import send
from models.core import audit, jobs
from models.core.jobs import Job, QueuedJob
from models.core.objects import NoObject
from models.core.session import transact
from models.research import exports
from models.research.acts import ResearchAct
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.research.faults import ResearchFault

domain = Domain("exports", __doc__)
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
    job_id = transact(_request, caller, datetime.now(UTC))
    broker.send(QueuedJob(exports.EXPORT, job_id))
    return ExportRequested(job_id=job_id, status_url=f"/exports/{job_id}")


def _request(session: Session, caller: Caller, now: datetime) -> int:
    job_id = exports.request(session, caller.study_id, now).id
    audit.note(session, caller.actor, ResearchAct.EXPORT, f"job {job_id}")
    return job_id


@domain.operation("GET", "/exports/<int:job_id>", roles={"researcher", "admin"}, faults=(CoreFault.UNKNOWN,))
def show_export(job_id: int, caller: Caller) -> ExportReply:
    """How far an export is, and its checksums once it is done."""
    return ExportReply(export=_seen(transact(_export_of, caller, job_id)))


@domain.operation(
    "GET",
    "/exports/<int:job_id>/file",
    roles={"researcher", "admin"},
    faults=(
        CoreFault.UNKNOWN,
        ResearchFault.EXPORT_UNFINISHED,
        ResearchFault.EXPORT_GONE,
        CoreFault.RANGE,
        CoreFault.STORE_AWAY,
    ),
    media=ZIP,
)
def fetch_export(job_id: int, caller: Caller) -> Response:
    """The zip of an export. A download that broke off goes on with `Range` and `If-Range` (the ETag)."""
    job = transact(_export_of, caller, job_id)
    if job.state != jobs.DONE:
        raise Refusal(ResearchFault.EXPORT_UNFINISHED)
    result: dict[str, Any] = job.result or {}
    try:
        response = send(result["key"], f"export-{job.id}.zip", ZIP, result["sha256"])
    except (KeyError, NoObject):  # a row without a key is of an export that expired
        raise Refusal(ResearchFault.EXPORT_GONE) from None
    transact(audit.note, caller.actor, ResearchAct.EXPORT_DOWNLOAD, f"job {job.id}")
    return response


def _export_of(session: Session, caller: Caller, job_id: int) -> Job:
    job = exports.of_study(session, caller.study_id, job_id)
    if job is None:
        raise Refusal(CoreFault.UNKNOWN)
    return job


def _seen(job: Job) -> ExportSeen:
    result: dict[str, Any] = job.result or {}
    numbers = {
        name: result.get(name) for name in ExportSeen.model_fields if name not in Job.__table__.columns
    }
    return ExportSeen(
        **numbers | {"job_id": job.id},
        state=job.state,
        reason=job.reason,
        created_at=job.created_at,
        finished_at=job.finished_at,
    )
