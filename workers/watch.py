"""The watchdog: looks for what did not happen, writes it down as incidents, and has it told."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from algorithm import randomisation as draws
from algorithm.protocol import load
from logs import where
from models import heartbeats, incidents, notifications, randomisation, studies
from models.heartbeats import BEAT, WORKERS
from models.incidents import RED, Condition, Kind
from models.randomisation import Draws
from models.session import transact
from models.studies import Study
from settings import settings
from workers import notify
from workers.app import log
from workers.conditions import CHECKS, Check, Look

SETTLED = timedelta(minutes=1)  # no transaction lasts so long: all lower rids are there
BATCH = 20_000
OF_ALL, OF_POLICIES, OF_HALF_DAYS = 1 / 3, 1 / 3, 1 / 6


def run(now: datetime | None = None) -> None:
    """Look at the deployment and at every study, then send what is to be told."""
    now = now or datetime.now(UTC)
    transact(lambda session: heartbeats.touch(session, WORKERS, now))
    record(None, incidents.OF_THE_DEPLOYMENT, _deployment(now), now)
    for study in transact(studies.everyone):
        try:
            _watch(study, now)
        except (OperationalError, InterfaceError):
            raise  # the database is away, for all of them
        except Exception as error:
            log.error("study cannot be watched", study_id=study.id, error=where(error))
    notify.send_due(now)


def _deployment(now: datetime) -> list[Condition]:
    """Beat's silence. A worker runs this: of theirs there is nothing to record, only to resolve."""
    last = transact(lambda session: heartbeats.last(session, BEAT))
    if last is None or now - last < timedelta(seconds=settings().silence_seconds):
        return []
    return [Condition(Kind.BEAT_SILENT, RED, {"seconds": round((now - last).total_seconds())})]


def _watch(study: Study, now: datetime) -> None:
    transact(partial(_read_draws, study.id, now))
    document = transact(lambda session: studies.protocol(session, study)).document
    look = Look(study, load(document), now)
    looked_for: list[Kind] = []
    found: list[Condition] = []
    for kind, check in CHECKS.items():
        try:
            condition = transact(partial(_checked, check, look))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.error("check failed", study_id=study.id, kind=kind, error=where(error))
            continue  # what cannot be looked at is neither there nor over
        looked_for.append(kind)
        found += [condition] if condition else []
    record(study.id, looked_for, found, now)


def _checked(check: Check, look: Look, session: Session) -> Condition | None:
    return check(session, look)


def record(study_id: int | None, looked_for: Iterable[Kind], found: list[Condition], now: datetime) -> None:
    """Write down which of the kinds that were looked for hold now, and queue what is to be told of it."""
    changes = transact(partial(_record, study_id, tuple(looked_for), found, now))
    for incident_id, kind, level, what in changes:
        told = {"kind": kind, "incident_level": level, "what": what}
        log.warning("incident", incident_id=incident_id, study_id=study_id, **told)


def _record(
    study_id: int | None,
    looked_for: tuple[Kind, ...],
    found: list[Condition],
    now: datetime,
    session: Session,
) -> list[tuple[int, str, str, str]]:
    remind = timedelta(hours=settings().remind_hours)
    by_kind = {condition.kind: condition for condition in found}
    changes = incidents.observe(session, study_id, looked_for, by_kind, now, remind)
    for change in changes:
        notifications.add(session, change, notify.channels(), now)
    return [(one.incident.id, one.incident.kind, one.incident.level, one.what) for one in changes]


def _read_draws(study_id: int, now: datetime, session: Session) -> None:
    """Bring the study's running test of its draws up to date.

    What it has found does not go away by itself: it begins anew when somebody has acknowledged it.
    """
    acknowledged_at = incidents.acknowledged_at(session, study_id, Kind.RANDOMISATION)
    if acknowledged_at is not None:
        randomisation.restart(session, study_id, acknowledged_at)
    new = randomisation.unread(session, study_id, now - SETTLED, BATCH)
    if not len(new.rid):
        return
    streams = _streams(new)
    held = randomisation.locked(session, study_id, list(streams))
    for name, (mask, share) in streams.items():
        stream = held.get(name) or randomisation.begin(session, study_id, name, share, len(draws.TILTS))
        wealth = np.array(stream.log_wealth) + draws.log_wealth(new.act_prob[mask], new.action[mask])
        stream.log_wealth = wealth.tolist()
        stream.log_evidence = draws.log_evidence(wealth)
        stream.decisions += int(mask.sum())
        stream.mismatched += int(new.mismatched[mask].sum())
        stream.last_rid = int(new.rid[-1])


def _streams(new: Draws) -> dict[str, tuple[np.ndarray, float]]:
    """The sets of decisions that are tested, as (mask, share); all shares there may ever be add up to one."""
    found = {randomisation.ALL: (np.ones(len(new.rid), dtype=bool), OF_ALL)}
    for name, mask in (("evening", new.evening), ("morning", ~new.evening)):
        if mask.any():
            found[name] = mask, OF_HALF_DAYS
    for policy_id in np.unique(new.policy_id[new.policy_id >= 0]).tolist():
        found[f"policy {policy_id}"] = new.policy_id == policy_id, OF_POLICIES * draws.weight(policy_id)
    return found
