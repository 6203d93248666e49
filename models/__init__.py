"""Tables, and the queries on them as functions whose first argument is a session. Nothing here commits."""

from models import (
    answers,
    audit,
    circuits,
    clients,
    decisions,
    figures,
    heartbeats,
    incidents,
    jobs,
    keys,
    notifications,
    observations,
    participants,
    parts,
    policies,
    proposals,
    randomisation,
    rows,
    statistics,
    studies,
    windows,
)
from models.base import Base

metadata = Base.metadata

__all__ = [
    "answers",
    "audit",
    "circuits",
    "clients",
    "decisions",
    "figures",
    "heartbeats",
    "incidents",
    "jobs",
    "keys",
    "metadata",
    "notifications",
    "observations",
    "participants",
    "parts",
    "policies",
    "proposals",
    "randomisation",
    "rows",
    "statistics",
    "studies",
    "windows",
]
