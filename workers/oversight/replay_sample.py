"""The nightly replay of a sample: recent decisions computed again, straight from the database."""

import random
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from models.core import studies
from models.core.session import transact
from models.core.studies import Study
from models.oversight.incidents import RED, Condition, Kind
from models.research import exports
from models.research.exports import Snapshot
from replay import checks
from replay.findings import Report
from replay.tables import TABLES
from replay.tables import Study as Replayed
from settings import settings
from workers.core.celery_app import log
from workers.oversight.watchdog import record

RECENT = timedelta(hours=26)
NEED_ALL_POLICIES = {"F1", "F3"}


def replay(study: Study, now: datetime) -> Report:
    """The replay of a day's decisions, of as many participants as the settings say; an incident if it fails.

    A night that had nothing to replay says nothing of the incident of a night before.
    """
    sample = transact(partial(_read, study, now - RECENT))
    report = Report()
    checks.some(sample, study.study_key, report)
    report.conclude()
    log.info("sample replayed", study_id=study.id, decisions=len(sample.checked), faults=report.faults)
    for kind, one in report.first.items():
        told = {"kind": kind, "where": one.where, "count": report.diverged[kind]}
        log.error("replay diverged", study_id=study.id, **told)
    if sample.checked or report.first:
        record(study.id, [Kind.REPLAY_DIVERGED], _conditions(report, len(sample.checked)), now)
    return report


def _conditions(report: Report, decisions: int) -> list[Condition]:
    """Somebody must look at this: what is stored is not what its own inputs give."""
    if not report.first:
        return []
    told = {"kinds": len(report.first), "divergences": report.diverged.total()}
    return [Condition(Kind.REPLAY_DIVERGED, RED, {"decisions": decisions, **told})]


def _read(study: Study, since: datetime, session: Session) -> Replayed:
    """All rows of the sampled participants, and the policies that decided for them since then."""
    recent = exports.decided_since(session, study.id, since)
    people = sorted(random.sample(recent, min(len(recent), settings().replay_sample)))
    tables = {
        name: exports.rows(session, study.id, name, people)
        for name in TABLES
        if name not in {"protocols", "policies", "policy_blocks"}
    }
    checked = [row for row in tables["decisions"] if row["act_gen_timestamp"] >= since]
    numbers = None
    if not NEED_ALL_POLICIES & {row["fallback_level"] for row in checked}:
        numbers = sorted({row["policy_id"] for row in checked if row["policy_id"] is not None})
    tables["protocols"] = exports.rows(session, study.id, "protocols")
    tables["policies"] = exports.rows(session, study.id, "policies", policy_ids=numbers)
    tables["policy_blocks"] = exports.rows(session, study.id, "policy_blocks", people, numbers)
    # read again: other sessions may have moved the counters on since the study's row was read
    snapshot = Snapshot(session, studies.by_id(session, study.id), exports.now(session))
    return Replayed(tables, snapshot.facts["study"], snapshot.as_of, checked)
