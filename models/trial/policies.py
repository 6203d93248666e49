"""Policies: immutable versions of what was learnt, and the blocks of participants that serving needs."""

import typing
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import BigInteger, UniqueConstraint, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, defer, mapped_column

from models.core import studies
from models.core.base import Base, CreatedAt, Document, Floats, Id, ProtocolId, StudyId
from models.core.declarations import Export, means
from models.core.pg_arrays import Array, places, received
from models.trial import policy_blocks
from models.trial.policy_blocks import PolicyBlock


class Policy(Base):
    """Version `policy_id` of a study's policy (0 = the prior). Matrices are stored row by row.

    participants: ids in the fit. row_seq, row_count, statistics_hash: the rows it contains.
    advantage_mean, advantage_covariance: the block that serves participants who are not in the fit.
    """

    __tablename__ = "policies"
    __rights__ = "INSERT"
    __export__ = Export.ROWS
    __table_args__ = (UniqueConstraint("study_id", "policy_id"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    policy_id: Mapped[int]
    algorithm: Mapped[str] = mapped_column(info=means("name of the algorithm"))
    protocol_id: Mapped[ProtocolId]
    protocol_hash: Mapped[str]
    code_version: Mapped[str]
    feature_version: Mapped[str]
    row_seq: Mapped[int] = mapped_column(
        BigInteger, info=means("the policy contains the learning rows up to this one", range=">= 0")
    )
    row_count: Mapped[int] = mapped_column(info=means("decisions learnt from", range=">= 0"))
    statistics_hash: Mapped[str] = mapped_column(
        info=means("SHA-256 of the sufficient statistics", "hexadecimal")
    )
    participants: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger), info=means("ids of the participants in the fit, in the order of the fit")
    )
    mean: Mapped[Floats] = mapped_column(
        info=means("posterior mean of the population's p coefficients", "reward units")
    )
    covariance: Mapped[Floats] = mapped_column(
        info=means("their covariance, p x p by rows", "reward units squared")
    )
    sigma_u: Mapped[Floats] = mapped_column(
        info=means("covariance of participants' deviations, p x p by rows", "reward units squared")
    )
    noise_variance: Mapped[float] = mapped_column(
        info=means("variance of the outcome's noise", "reward units squared", "> 0")
    )
    advantage_mean: Mapped[Floats] = mapped_column(
        info=means("advantage's mean for who is not in the fit, q values", "reward units")
    )
    advantage_covariance: Mapped[Floats] = mapped_column(
        info=means("its covariance, q x q by rows", "reward units squared")
    )
    report: Mapped[Document] = mapped_column(
        info=means("how the fit went: evidence, hyper-parameters, largest change of a probability")
    )
    created_at: Mapped[CreatedAt]


class Population(NamedTuple):
    """The part of a policy that serving keeps: number, features, members, and the block for all others."""

    policy_id: int
    feature_version: str
    participants: frozenset[int]
    mean: Array
    covariance: Array


class Learnt(typing.Protocol):
    """The numbers of a fit, p coefficients and q of them for the advantage."""

    @property
    def population_mean(self) -> Array: ...  # (p,)
    @property
    def population_covariance(self) -> Array: ...  # (p, p)
    @property
    def sigma_u(self) -> Array: ...  # (p, p)
    @property
    def noise_variance(self) -> float: ...
    @property
    def rows(self) -> int: ...
    @property
    def statistics_hash(self) -> str: ...
    @property
    def beta(self) -> Array: ...  # (m, q)
    @property
    def V(self) -> Array: ...  # (m, q, q)  # noqa: N802


class Stamp(NamedTuple):
    """The protocol, algorithm, features, code and rows that a policy was computed with."""

    protocol_id: int
    protocol_hash: str
    algorithm: str
    feature_version: str
    code_version: str
    row_seq: int


def add(
    session: Session,
    study_id: int,
    stamp: Stamp,
    learnt: Learnt,
    advantage: tuple[Array, Array],
    participants: list[int],
    report: dict[str, Any],
) -> Policy:
    """Insert a policy with the next number of its study, whose row must be locked, and its serving blocks.

    advantage: mean (q,) and covariance (q, q) for participants who are not in the fit. participants: ids in
    the fit, in the order of `learnt.beta` and `learnt.V`.
    """
    highest = session.scalar(select(func.max(Policy.policy_id)).where(Policy.study_id == study_id))
    policy = Policy(
        study_id=study_id,
        policy_id=0 if highest is None else highest + 1,
        **stamp._asdict(),
        row_count=learnt.rows,
        statistics_hash=learnt.statistics_hash,
        participants=participants,
        mean=learnt.population_mean.tolist(),
        covariance=learnt.population_covariance.ravel().tolist(),
        sigma_u=learnt.sigma_u.ravel().tolist(),
        noise_variance=learnt.noise_variance,
        advantage_mean=advantage[0].tolist(),
        advantage_covariance=advantage[1].ravel().tolist(),
        report=report,
    )
    session.add(policy)
    session.flush()
    policy_blocks.add(session, policy.study_id, policy.policy_id, participants, learnt.beta, learnt.V)
    return policy


def numbered(session: Session, study_id: int, policy_id: int) -> Policy | None:
    """Policy `policy_id` of the study, or None."""
    return session.scalars(
        select(Policy).where(Policy.study_id == study_id, Policy.policy_id == policy_id)
    ).one_or_none()


def slim(session: Session, study_id: int, policy_id: int) -> Policy:
    """Return policy `policy_id` of the study without the list of its participants, which may be long.

    Raises NoResultFound.
    """
    return session.scalars(
        select(Policy)
        .where(Policy.study_id == study_id, Policy.policy_id == policy_id)
        .options(defer(Policy.participants))
    ).one()


def population(session: Session, study_id: int, policy_id: int) -> Population | None:
    """Return the part of a policy that serving caches, or None where there is no such policy.

    `mean` (q,) and `covariance` (q, q) where the row is as it was written: their user checks.
    """
    policy = numbered(session, study_id, policy_id)
    if policy is None:
        return None
    mean = np.array(policy.advantage_mean, dtype=np.float64)
    covariance = np.array(policy.advantage_covariance, dtype=np.float64)
    if covariance.size == mean.size**2:
        covariance = covariance.reshape(mean.size, mean.size)
    return Population(
        policy.policy_id, policy.feature_version, frozenset(policy.participants), mean, covariance
    )


def prior(session: Session, study_id: int) -> int:
    """Return the number of the policy that the study, or its last protocol that began anew, began with."""
    numbers = select(func.max(Policy.policy_id)).where(Policy.study_id == study_id, Policy.row_count == 0)
    return session.execute(numbers).scalar_one()


def below(session: Session, study_id: int, policy_id: int, feature_version: str) -> int | None:
    """Return the highest policy number below `policy_id` of these features, or None."""
    return session.scalar(
        select(func.max(Policy.policy_id)).where(
            Policy.study_id == study_id,
            Policy.policy_id < policy_id,
            Policy.feature_version == feature_version,
        )
    )


def block(
    session: Session, study_id: int, policy_id: int, participant_id: int
) -> tuple[str | None, str | None]:
    """Return mean and covariance of a participant's block, for `pg_arrays.sent`; None where it has none."""
    row = session.execute(
        select(
            *(func.encode(func.array_send(a), "hex") for a in (PolicyBlock.mean, PolicyBlock.covariance))
        ).where(
            PolicyBlock.study_id == study_id,
            PolicyBlock.policy_id == policy_id,
            PolicyBlock.participant_id == participant_id,
        )
    ).one_or_none()
    return (None, None) if row is None else (row[0], row[1])


def blocks(session: Session, policy: Policy, participants: list[int]) -> tuple[Array, Array]:
    """Return (m, q) means and (m, q, q) covariances that a policy serves these m participants with."""
    q = len(policy.advantage_mean)
    means = np.tile(np.array(policy.advantage_mean), (len(participants), 1))
    covariances = np.tile(np.array(policy.advantage_covariance).reshape(q, q), (len(participants), 1, 1))
    rows = session.execute(
        select(
            PolicyBlock.participant_id,
            *(func.array_send(column) for column in (PolicyBlock.mean, PolicyBlock.covariance)),
        ).where(
            PolicyBlock.study_id == policy.study_id,
            PolicyBlock.policy_id == policy.policy_id,
            PolicyBlock.participant_id.in_(participants),
        )
    ).all()
    if rows:
        ids, own_means, own_covariances = zip(*rows, strict=True)
        position = {participant: index for index, participant in enumerate(participants)}
        own = [position[participant] for participant in ids]
        means[own] = received(own_means, q)
        covariances[own] = received(own_covariances, q * (q + 1) // 2)[:, places(q)]
    return means, covariances


def is_whole(session: Session, policy: Policy) -> bool:
    """Return whether every participant in the fit has a block still: only then can the policy serve."""
    block_count = session.scalar(
        select(func.count()).where(
            PolicyBlock.study_id == policy.study_id, PolicyBlock.policy_id == policy.policy_id
        )
    )
    return block_count == len(policy.participants)


PRUNE = """
DELETE FROM policy_blocks b
USING policies p, studies s
WHERE b.study_id = :study_id AND p.study_id = b.study_id AND p.policy_id = b.policy_id
  AND s.id = b.study_id AND p.policy_id < s.policy_id
  AND p.policy_id <> (SELECT max(policy_id) FROM policies WHERE study_id = s.id AND policy_id < s.policy_id)
  AND NOT EXISTS (SELECT FROM decisions d WHERE d.study_id = s.id AND d.policy_id = p.policy_id)
"""


def prune(session: Session, study_id: int) -> int:
    """Delete the blocks of policies that never served; return how many. Rows give them again.

    The serving policy's stay, and those of the one before it, which serves where it cannot.
    """
    studies.take_turn(session, study_id)  # so that nobody activates a policy whose blocks are just leaving
    deleted: Any = session.execute(text(PRUNE), {"study_id": study_id})
    return int(deleted.rowcount)


def listed(session: Session, study_id: int) -> list[Policy]:
    """All policies of the study, oldest first."""
    return list(session.scalars(select(Policy).where(Policy.study_id == study_id).order_by(Policy.policy_id)))


def count(session: Session, study_id: int) -> int:
    """Return how many policies the study has."""
    return session.scalar(select(func.count()).where(Policy.study_id == study_id)) or 0
