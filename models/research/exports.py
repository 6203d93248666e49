"""Exports: the tables and columns that leave the service, and their rows out of one snapshot.

Each table declares at its class whether it is exported, and each column whether it is withheld. Accounts and
their tokens, keys that clients chose, names of persons and secrets stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import CheckConstraint, Column, ColumnElement, Table, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.types import Boolean, Date, DateTime, Float, Integer

from models.core import jobs
from models.core.base import Base, classes
from models.core.declarations import Export, meaning
from models.core.grants import is_secret
from models.core.jobs import Job
from models.core.studies import Study
from models.trial import protocols
from models.trial.participants import Participant
from models.trial.protocols import ProtocolVersion

EXPORT = "export"
AREA = "exports"  # of the keys of their objects
CHUNK = 2000  # rows in memory at once
PEOPLE = 100  # participants in memory at once
Row = dict[str, Any]


class Described(NamedTuple):
    """An exported column with its line of the dictionary."""

    name: str
    kind: str
    meaning: str
    unit: str
    range: str
    nullable: bool


def tables() -> dict[str, Table]:
    """Return every table that is exported, by name."""
    declared = classes()
    return {
        table.name: table
        for table in Base.metadata.sorted_tables
        if declared[table.name].__export__ is not Export.WITHHELD
    }


def long_tables() -> list[str]:
    """Return the names of the tables that the long table is made from."""
    declared = classes()
    return [name for name in tables() if declared[name].__export__ is Export.LONG_TABLE]


def columns(table: Table) -> list[Column[Any]]:
    """Return the columns of a table that are exported."""
    return [column for column in table.columns if not (is_secret(column) or meaning(column).withheld)]


def kind(column: Column[Any]) -> str:
    """Return the kind of a column's values, in the words of the export's format."""
    stored = column.type
    if isinstance(stored, ARRAY):
        return "integers" if isinstance(stored.item_type, Integer) else "numbers"
    kinds = {JSONB: "json", Boolean: "boolean", DateTime: "instant", Date: "date"}
    kinds |= {Integer: "integer", Float: "number"}
    return next((name for type_, name in kinds.items() if isinstance(stored, type_)), "text")


def described(table: Table) -> list[Described]:
    """Return the lines of the dictionary for a table's exported columns."""
    lines = []
    for column in columns(table):
        text, unit, values, *_ = meaning(column)
        allowed = values or _allowed(column)
        lines.append(Described(column.name, kind(column), text, unit, allowed, bool(column.nullable)))
    return lines


def _allowed(column: Column[Any]) -> str:
    """Return the values that a constraint of the table allows the column; no text where there is none."""
    for constraint in getattr(column.table, "constraints", ()):
        if isinstance(constraint, CheckConstraint) and str(constraint.sqltext).startswith(
            f"{column.name} IN"
        ):
            return str(constraint.sqltext).partition("(")[2].rstrip(")").replace("'", "")
    return ""


class Snapshot:
    """A study as one transaction sees it, for the writer of an export. `key`: once the study is closed."""

    def __init__(self, session: Session, study: Study, as_of: datetime) -> None:
        self.session = session
        self.study = study
        self.as_of = as_of
        self.key = study.study_key if study.closed_at else None

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the study for the manifest."""
        study = self.study
        names = ("name", "timezone", "ema_timezone", "protocol_version", "policy_id", "row_seq", "paused")
        settings_now = {name: getattr(study, name) for name in (*names, "learning_frozen")}
        closed_at = study.closed_at.isoformat() if study.closed_at else None
        return {
            "study": settings_now | {"created_at": study.created_at.isoformat(), "closed_at": closed_at},
            "as_of": self.as_of,
            "protocol_hashes": {
                str(version.id): version.hash for version in versions(self.session, study.id)
            },
            "study_key_sha256": study.study_key_sha256,
            "study_key": self.key.hex() if self.key else None,
        }

    @cached_property
    def tables(self) -> dict[str, list[Described]]:
        """The exported columns of each table."""
        return {name: described(table) for name, table in tables().items()}

    def protocol(self) -> Mapping[str, Any]:
        """Return the protocol document in force."""
        return protocols.in_force(self.session, self.study).document

    def chunks(self, table: str) -> Iterator[list[Sequence[Any]]]:
        """Yield the rows of a table, some at a time: each statement goes on after the key where one ended."""
        keys = _keys(tables()[table])
        query = _of_study(tables()[table], self.study.id).limit(CHUNK)
        chunk = self.session.execute(query).all()
        while chunk:
            yield [tuple(row) for row in chunk]
            last = [getattr(chunk[-1], key.name) for key in keys]
            chunk = self.session.execute(query.where(tuple_(*keys) > tuple_(*last))).all()

    def people(self) -> Iterator[dict[str, list[Row]]]:
        """Yield the rows of the long table's tables, by table, for some participants at a time."""
        query = select(Participant.id).where(Participant.study_id == self.study.id)
        query = query.order_by(Participant.id).limit(PEOPLE)
        after = 0
        while ids := self.session.scalars(query.where(Participant.id > after)).all():
            yield {name: rows(self.session, self.study.id, name, ids) for name in long_tables()}
            after = ids[-1]


def _of_study(table: Table, study_id: int) -> Any:
    return select(*columns(table)).where(table.c.study_id == study_id).order_by(*_keys(table))


def _keys(table: Table) -> list[Column[Any]]:
    """Return the columns that tell a study's rows of a table apart, and order them."""
    return [column for column in table.primary_key.columns if column.name != "study_id"]


def rows(
    session: Session,
    study_id: int,
    name: str,
    participant_ids: Sequence[int] | None = None,
    policy_ids: Sequence[int] | None = None,
) -> list[Row]:
    """Return the rows of a table in its order; None for participants or policies means all of them."""
    table = tables()[name]
    query = _of_study(table, study_id)
    if participant_ids is not None:
        query = query.where(_theirs(table, participant_ids))
    if policy_ids is not None:
        query = query.where(table.c.policy_id.in_(policy_ids))
    return [dict(row) for row in session.execute(query).mappings()]


def decided_since(session: Session, study_id: int, since: datetime) -> list[int]:
    """Return the ids of the participants with a decision since `since`."""
    decisions = tables()["decisions"].c
    query = select(decisions.participant_id).where(
        decisions.study_id == study_id, decisions.act_gen_timestamp >= since
    )
    return list(session.scalars(query.distinct()))


def now(session: Session) -> datetime:
    """Return the begin of this transaction, by the database's clock."""
    return session.scalars(select(func.now())).one()


def forget_expired(session: Session, before: datetime) -> list[str]:
    """Take the keys of their objects from exports that were finished before this time; return those keys."""
    key = Job.result["key"].as_string()
    done = (Job.kind == EXPORT, Job.state == jobs.DONE, Job.finished_at < before, key.is_not(None))
    expired = session.execute(select(Job.id, key).where(*done).with_for_update()).all()
    ids = [job_id for job_id, _ in expired]
    session.execute(update(Job).where(Job.id.in_(ids)).values(result=Job.result.op("-")("key")))
    return [key for _, key in expired]


def named(session: Session, keys: Sequence[str]) -> set[str]:
    """Return those of these keys under which an export's object lies."""
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
    """Return all versions of the study's protocol."""
    query = select(ProtocolVersion).where(ProtocolVersion.study_id == study_id).order_by(ProtocolVersion.id)
    return list(session.scalars(query))


def request(session: Session, study_id: int, now: datetime) -> Job:
    """Queue an export."""
    job = Job(study_id=study_id, kind=EXPORT, run_after=now, sent_at=now)
    session.add(job)
    session.flush()
    return job


def of_study(session: Session, study_id: int, job_id: int) -> Job | None:
    """Return the export with this id where it is the study's, or None."""
    job = jobs.of_study(session, study_id, job_id)
    return job if job is not None and job.kind == EXPORT else None
