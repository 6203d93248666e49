"""Tables, and the queries on them as functions whose first argument is a session. Nothing here commits."""

from models import (
    answers,
    audit,
    clients,
    decisions,
    jobs,
    keys,
    participants,
    policies,
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
    "clients",
    "decisions",
    "jobs",
    "keys",
    "metadata",
    "participants",
    "policies",
    "rows",
    "statistics",
    "studies",
    "windows",
]
