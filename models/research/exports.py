"""Exports: which tables and columns leave the service, and their rows out of one snapshot.

Every table that has rows of a study is exported, but for what is WITHHELD: accounts and their tokens, keys
that clients chose, names of persons, secrets. A new table joins by being one.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import CheckConstraint, Column, ColumnElement, Table, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.types import Boolean, Date, DateTime, Float, Integer

from models.core import jobs, studies
from models.core.base import Base
from models.core.grants import is_secret
from models.core.jobs import Job
from models.core.studies import ProtocolVersion, Study
from models.research.dictionary import MEANINGS, Meaning
from models.trial.participants import Participant

EXPORT = "export"
AREA = "exports"  # of their objects' keys
SEALED = "export written"  # an act of the audit, with the manifest's checksum
WITHHELD_TABLES = {
    *("studies", "clients", "revoked_tokens", "idempotency_keys"),
    *("statistics", "randomisation_tests"),  # derived from what is exported
    *("circuits", "fit_parts", "heartbeats", "notifications"),  # of the deployment
}
WITHHELD_COLUMNS = {"study_id", "user_id", "registration"}
CHUNK = 2000  # rows in memory at once
PEOPLE = 100  # participants in memory at once
BY_PERSON = ("decisions", "windows", "answers", "learning_rows", "audit")
Row = dict[str, Any]


class Described(NamedTuple):
    """A column that is exported: what the dictionary says of it."""

    name: str
    kind: str
    meaning: str
    unit: str
    range: str
    nullable: bool


def tables() -> dict[str, Table]:
    """Every table that is exported, by name."""
    return {
        table.name: table
        for table in Base.metadata.sorted_tables
        if "study_id" in table.columns and table.name not in WITHHELD_TABLES
    }


def columns(table: Table) -> list[Column[Any]]:
    """The columns of a table that are exported."""
    return [
        column for column in table.columns if column.name not in WITHHELD_COLUMNS and not is_secret(column)
    ]


def kind(column: Column[Any]) -> str:
    """The kind of a column's values, in the words of the export's format."""
    of = column.type
    if isinstance(of, ARRAY):
        return "integers" if isinstance(of.item_type, Integer) else "numbers"
    kinds = {JSONB: "json", Boolean: "boolean", DateTime: "instant", Date: "date"}
    kinds |= {Integer: "integer", Float: "number"}
    return next((name for type_, name in kinds.items() if isinstance(of, type_)), "text")


def described(table: Table) -> list[Described]:
    """What the dictionary says of a table's columns."""
    return [
        Described(column.name, kind(column), *_meaning(column), nullable=bool(column.nullable))
        for column in columns(table)
    ]


def _meaning(column: Column[Any]) -> tuple[str, str, str]:
    """Meaning, unit and range; the range also from what the table's constraints allow."""
    table = column.table.name
    told = MEANINGS.get(f"{table}.{column.name}") or MEANINGS.get(column.name) or Meaning(column.doc or "")
    return told.text, told.unit, told.range or _allowed(column)


def _allowed(column: Column[Any]) -> str:
    for constraint in getattr(column.table, "constraints", ()):
        if isinstance(constraint, CheckConstraint) and str(constraint.sqltext).startswith(
            f"{column.name} IN"
        ):
            return str(constraint.sqltext).partition("(")[2].rstrip(")").replace("'", "")
    return ""


class Snapshot:
    """What one transaction sees of a study, for the writer of an export. `key`: once the study is closed."""

    def __init__(self, session: Session, study: Study, as_of: datetime) -> None:
        self.session = session
        self.study = study
        self.as_of = as_of
        self.key = study.study_key if study.closed_at else None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says of the study."""
        study = self.study
        names = ("name", "timezone", "ema_timezone", "protocol_version", "policy_id", "row_seq", "paused")
        told = {name: getattr(study, name) for name in (*names, "learning_frozen")}
        closed_at = study.closed_at.isoformat() if study.closed_at else None
        return {
            "study": told | {"created_at": study.created_at.isoformat(), "closed_at": closed_at},
            "as_of": self.as_of,
            "protocol_hashes": {
                str(version.id): version.hash for version in versions(self.session, study.id)
            },
            "study_key_sha256": study.study_key_sha256,
            "study_key": self.key.hex() if self.key else None,
        }

    @cached_property
    def tables(self) -> dict[str, list[Described]]:
        """The columns of each table."""
        return {name: described(table) for name, table in tables().items()}

    def protocol(self) -> Mapping[str, Any]:
        """The document in force."""
        return studies.protocol(self.session, self.study).document

    def chunks(self, table: str) -> Iterator[list[Sequence[Any]]]:
        """The rows of a table, some at a time: each statement goes on after the key where one ended."""
        keys = _keys(tables()[table])
        query = _of_study(tables()[table], self.study.id).limit(CHUNK)
        found = self.session.execute(query).all()
        while found:
            yield [tuple(row) for row in found]
            last = [getattr(found[-1], key.name) for key in keys]
            found = self.session.execute(query.where(tuple_(*keys) > tuple_(*last))).all()

    def people(self) -> Iterator[dict[str, list[Row]]]:
        """Participants and what is theirs, some participants at a time, by participant."""
        after = 0
        while ids := _next_ids(self.session, self.study.id, after):
            yield {
                name: rows(self.session, self.study.id, name, ids) for name in ("participants", *BY_PERSON)
            }
            after = ids[-1]


def _next_ids(session: Session, study_id: int, after: int) -> list[int]:
    query = select(Participant.id).where(Participant.study_id == study_id, Participant.id > after)
    return list(session.scalars(query.order_by(Participant.id).limit(PEOPLE)))


def _of_study(table: Table, study_id: int) -> Any:
    return select(*columns(table)).where(table.c.study_id == study_id).order_by(*_keys(table))


def _keys(table: Table) -> list[Column[Any]]:
    """What tells a study's rows of a table apart, and orders them."""
    return [column for column in table.primary_key.columns if column.name != "study_id"]


def rows(
    session: Session,
    study_id: int,
    name: str,
    participant_ids: Sequence[int] | None = None,
    policy_ids: Sequence[int] | None = None,
) -> list[Row]:
    """The rows of a table in its order, where given only those of these participants and policies."""
    table = tables()[name]
    query = _of_study(table, study_id)
    if participant_ids is not None:
        query = query.where(_theirs(table, participant_ids))
    if policy_ids is not None:
        query = query.where(table.c.policy_id.in_(policy_ids))
    return [dict(row) for row in session.execute(query).mappings()]


def decided_since(session: Session, study_id: int, since: datetime) -> list[int]:
    """Ids of the participants with a decision since then."""
    decisions = tables()["decisions"].c
    query = select(decisions.participant_id).where(
        decisions.study_id == study_id, decisions.act_gen_timestamp >= since
    )
    return list(session.scalars(query.distinct()))


def now(session: Session) -> datetime:
    """The begin of this transaction, by the database's clock."""
    return session.scalars(select(func.now())).one()


def forget_expired(session: Session, before: datetime) -> list[str]:
    """Take the keys of their objects from exports that were finished before this time; those keys."""
    key = Job.result["key"].as_string()
    done = (Job.kind == EXPORT, Job.state == jobs.DONE, Job.finished_at < before, key.is_not(None))
    expired = session.execute(select(Job.id, key).where(*done).with_for_update()).all()
    ids = [job_id for job_id, _ in expired]
    session.execute(update(Job).where(Job.id.in_(ids)).values(result=Job.result.op("-")("key")))
    return [key for _, key in expired]


def named(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of these keys under which an export's object lies."""
    key = Job.result["key"].as_string()
    study_ids = {int(group) for group in (each.split("/")[1] for each in keys) if group.isdecimal()}
    query = select(key).where(Job.study_id.in_(study_ids), Job.kind == EXPORT, key.in_(keys))
    return set(session.scalars(query))


def _theirs(table: Table, participant_ids: Sequence[int]) -> ColumnElement[bool]:
    if table.name == "participants":
        return table.c.id.in_(participant_ids)
    if "participant_id" in table.columns:
        return table.c.participant_id.in_(participant_ids)
    decisions = tables()["decisions"]
    return table.c.decision_id.in_(
        select(decisions.c.id).where(decisions.c.participant_id.in_(participant_ids))
    )


def versions(session: Session, study_id: int) -> list[ProtocolVersion]:
    """Every version of the study's protocol."""
    query = select(ProtocolVersion).where(ProtocolVersion.study_id == study_id).order_by(ProtocolVersion.id)
    return list(session.scalars(query))


def request(session: Session, study_id: int, now: datetime) -> Job:
    """Queue an export."""
    job = Job(study_id=study_id, kind=EXPORT, run_after=now, sent_at=now)
    session.add(job)
    session.flush()
    return job


def of_study(session: Session, study_id: int, job_id: int) -> Job | None:
    """The export with this id where it is the study's, or None."""
    job = jobs.of_study(session, study_id, job_id)
    return job if job is not None and job.kind == EXPORT else None
