"""Studies: the present state of a study."""

from datetime import datetime

from sqlalchemy.orm import Session

from api.core.endpoint import Domain, Reply
from models.core import jobs, studies
from models.core.session import transact
from models.trial import answers, decisions, learning_rows, participants, policies, windows
from services.core.callers import Caller
from services.trial import protocols

domain = Domain("studies", __doc__)


class StudyState(Reply):
    """Counts of everything in a study. `rows` exist now, `policy_rows` are in the serving policy.

    `study_key` (in hexadecimal) is shown once the study is closed.
    """

    study: str
    paused: bool
    learning_frozen: bool
    closed_at: datetime | None
    participants: int
    decisions: int
    windows: dict[str, int]
    discrepancies: int
    fallbacks: dict[str, int]
    policies: int
    policy_id: int
    rows: int
    policy_rows: int
    jobs: dict[str, int]
    protocol_hash: str
    protocol: str
    study_length: int
    study_key_sha256: str
    study_key: str | None


@domain.operation("GET", "/study", roles={"client", "researcher", "admin"})
def show_study(caller: Caller) -> StudyState:
    """Your study: how many decisions, windows, policies and jobs it has, and in which states."""

    def read(session: Session) -> StudyState:
        study = studies.by_id(session, caller.study_id)
        protocol = protocols.in_force(session, study.id)
        fallbacks = decisions.fallback_counts(session, study.id)
        serving = policies.numbered(session, study.id, study.policy_id)
        return StudyState(
            study=study.name,
            paused=study.paused,
            learning_frozen=study.learning_frozen,
            closed_at=study.closed_at,
            participants=participants.count(session, study.id),
            decisions=sum(fallbacks.values()),
            windows={"ended": 0, "ingested": 0, "failed": 0, "missed": 0} | windows.counts(session, study.id),
            discrepancies=answers.discrepancy_count(session, study.id),
            fallbacks=fallbacks,
            policies=policies.count(session, study.id),
            policy_id=study.policy_id,
            rows=learning_rows.possible(
                session, study.id, protocol.schedule.outcome_lag, protocol.design.feature_version
            ),
            policy_rows=serving.row_count if serving else 0,
            jobs={"queued": 0, "running": 0, "done": 0, "failed": 0} | jobs.counts(session, study.id),
            protocol_hash=protocol.digest,
            protocol=protocol.design.name,
            study_length=protocol.schedule.study_length,
            study_key_sha256=study.study_key_sha256,
            study_key=bytes(study.study_key).hex() if study.closed_at else None,
        )

    return transact(read)
