"""The nightly replay of a sample: recent decisions are computed again, straight from the database."""

import random
from datetime import datetime, timedelta

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

RECENT = timedelta(hours=26)  # a day, and what the night before may have left out
NEED_ALL_POLICIES = {"F1", "F3"}  # rungs of the ladder below others: why those failed shows in their policies


def replay(study: Study, now: datetime) -> Report:
    """Replay a day's decisions of as many participants as the settings say.

    1. The rows of the sample are read, at one moment.
    2. Each decision is computed again from its own inputs.
    3. A decision that differs is logged, by kind, and is an incident: a person must look at it.
    """
    sample = transact(_read, study, now - RECENT)
    report = Report()
    checks.some(sample, study.study_key, report)
    report.conclude()
    log.info("sample replayed", study_id=study.id, decisions=len(sample.checked), faults=report.faults)
    for kind, divergence in report.first.items():
        fields = {"kind": kind, "where": divergence.where, "count": report.diverged[kind]}
        log.error("replay diverged", study_id=study.id, **fields)
    conditions = list[Condition]()
    if report.first:
        detail: dict[str, float] = {
            "decisions": len(sample.checked),
            "kinds": len(report.first),
            "divergences": report.diverged.total(),
        }
        conditions = [Condition(Kind.REPLAY_DIVERGED, RED, detail)]
    # a night without decisions does not end the incident of an earlier one
    if sample.checked or report.first:
        record(study.id, [Kind.REPLAY_DIVERGED], conditions, now)
    return report


def _read(session: Session, study: Study, since: datetime) -> Replayed:
    """Read all rows of the sampled participants, and the policies that decided for them since `since`."""
    recent = exports.decided_since(session, study.id, since)
    participants = sorted(random.sample(recent, min(len(recent), settings().replay_sample)))
    tables = {
        name: exports.rows(session, study.id, name, participants)
        for name in TABLES
        if name not in {"protocols", "policies", "policy_blocks"}
    }
    checked = [row for row in tables["decisions"] if row["act_gen_timestamp"] >= since]
    policy_ids = None  # all
    if not NEED_ALL_POLICIES & {row["fallback_level"] for row in checked}:
        policy_ids = sorted({row["policy_id"] for row in checked if row["policy_id"] is not None})
    tables["protocols"] = exports.rows(session, study.id, "protocols")
    tables["policies"] = exports.rows(session, study.id, "policies", policy_ids=policy_ids)
    tables["policy_blocks"] = exports.rows(session, study.id, "policy_blocks", participants, policy_ids)
    # the study is read again, at the moment of the other rows: its counters may have moved on
    snapshot = Snapshot(session, studies.by_id(session, study.id), exports.now(session))
    return Replayed(tables, snapshot.facts["study"], snapshot.as_of, checked)
