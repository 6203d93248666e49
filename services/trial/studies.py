"""Studies: the beginning of a study, and the key of its draws."""

from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from algorithm.trial.protocol import Protocol
from models.core import audit, studies
from models.core.audit import OPERATOR, Actor
from models.core.studies import Study
from models.trial.acts import TrialAct
from services.core import caches
from services.trial import protocols

REASON = "the study begins"
_keys: dict[int, bytes] = {}


def create(session: Session, protocol: Protocol, author: str, columns: dict[str, Any]) -> Study:
    """Begin a study with its protocol, its key, its prior policy and the first row of its audit."""
    study = studies.create(session, **columns)
    version = protocols.add(session, study, study.protocol_version, protocol, author, REASON)
    protocols.add_prior(session, study, version, protocol)
    after = {
        "name": study.name,
        "timezone": study.timezone,
        "ema_timezone": study.ema_timezone,
        "study_key_sha256": study.study_key_sha256,
        "protocol_version": study.protocol_version,
        "policy_id": study.policy_id,
        "protocol_hash": version.hash,
        "author": author,
        "ema_host": urlsplit(study.ema_url).hostname,  # the rest of the address may hold a password
    }
    audit.note(session, Actor(study.id, role=OPERATOR), TrialAct.CREATE_STUDY, REASON, after=after)
    return study


def key(session: Session, study_id: int) -> bytes:
    """Return the key of a study's draws; it never changes, so each process keeps it."""
    study_key = _keys.get(study_id)
    if study_key is None:
        study_key = bytes(studies.by_id(session, study_id).study_key)
        caches.make_room(_keys)
        _keys[study_id] = study_key
    return study_key
