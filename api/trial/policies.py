"""Policies: the versions of what was learnt, and the probabilities that they stand for."""

from datetime import datetime
from typing import Any

import numpy as np
from pydantic import BaseModel
from sqlalchemy.orm import Session

from algorithm.trial.ladder import Block, randomise
from algorithm.trial.protocol import Protocol
from api.core.endpoint import Domain, Reply
from models.core import pg_arrays
from models.core.session import transact
from models.trial import participants, policies
from models.trial.policies import Policy
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.trial import protocols
from services.trial.faults import TrialFault

domain = Domain("policies", __doc__)


class PolicySeen(BaseModel):
    """A policy. `act_prob` is what a participant who was not in the fit would get, by state."""

    policy_id: int
    algorithm: str
    rows: int
    participants: int
    noise_variance: float
    act_prob: dict[str, float]
    report: dict[str, Any]
    protocol_hash: str
    code_version: str
    created_at: datetime


class PolicyReply(Reply):
    """One policy."""

    policy: PolicySeen


class BlockReply(Reply):
    """The posterior by which a policy decides for one participant: mean (q,) and covariance (q, q) of the
    advantage's coefficients, and act_prob by state.

    `is_in_fit`: the posterior is the participant's own; else that of everybody who was not in the fit.
    """

    policy_id: int
    participant_id: int
    is_in_fit: bool
    mean: list[float]
    covariance: list[list[float]]
    act_prob: dict[str, float]


class PolicyList(Reply):
    """All policies of the study, oldest first."""

    policies: list[PolicySeen]


@domain.operation("GET", "/policies", roles={"client", "researcher", "admin"})
def list_policies(caller: Caller) -> PolicyList:
    """Every policy of your study."""

    def read(session: Session) -> list[PolicySeen]:
        return [_seen(session, policy) for policy in policies.listed(session, caller.study_id)]

    return PolicyList(policies=transact(read))


@domain.operation(
    "GET", "/policies/<int:policy_id>", roles={"client", "researcher", "admin"}, faults=(CoreFault.UNKNOWN,)
)
def show_policy(policy_id: int, caller: Caller) -> PolicyReply:
    """One policy of your study."""

    def read(session: Session) -> PolicySeen:
        policy = policies.numbered(session, caller.study_id, policy_id)
        if policy is None:
            raise Refusal(CoreFault.UNKNOWN)
        return _seen(session, policy)

    return PolicyReply(policy=transact(read))


@domain.operation(
    "GET",
    "/policies/<int:policy_id>/participants/<int:participant_id>",
    roles={"researcher", "admin"},
    faults=(CoreFault.UNKNOWN, TrialFault.POLICY_PRUNED),
)
def show_block(policy_id: int, participant_id: int, caller: Caller) -> BlockReply:
    """The posterior by which one policy of your study decides for one participant."""

    def read(session: Session) -> BlockReply:
        policy = policies.numbered(session, caller.study_id, policy_id)
        if policy is None or participants.of_study(session, caller.study_id, participant_id) is None:
            raise Refusal(CoreFault.UNKNOWN)
        is_in_fit = participant_id in policy.participants
        if not is_in_fit:
            block = _of_all(policy)
        else:
            mean, covariance = policies.block(session, caller.study_id, policy_id, participant_id)
            if mean is None or covariance is None:
                raise Refusal(TrialFault.POLICY_PRUNED)
            means = pg_arrays.sent(mean)
            block = Block(means, pg_arrays.unpack(pg_arrays.sent(covariance), means.size))
        return BlockReply(
            policy_id=policy_id,
            participant_id=participant_id,
            is_in_fit=is_in_fit,
            mean=block.mean.tolist(),
            covariance=block.covariance.tolist(),
            act_prob=_act_prob(block, protocols.loaded(session, policy.protocol_id)),
        )

    return transact(read)


def _of_all(policy: Policy) -> Block:
    """Return the posterior of everybody who was not in the policy's fit."""
    mean = np.array(policy.advantage_mean)
    return Block(mean, np.array(policy.advantage_covariance).reshape(mean.size, mean.size))


def _seen(session: Session, policy: Policy) -> PolicySeen:
    protocol = protocols.loaded(session, policy.protocol_id)
    return PolicySeen(
        policy_id=policy.policy_id,
        algorithm=policy.algorithm,
        rows=policy.row_count,
        participants=len(policy.participants),
        noise_variance=policy.noise_variance,
        act_prob=_act_prob(_of_all(policy), protocol),
        report=policy.report,
        protocol_hash=policy.protocol_hash,
        code_version=policy.code_version,
        created_at=policy.created_at,
    )


def _act_prob(block: Block, protocol: Protocol) -> dict[str, float]:
    """Return the probability of action 1 in each state of a protocol, by the state's values in one word."""
    return {
        "".join(f"{value:g}" for value in state): randomise(
            protocol.design.features(state), block, protocol
        ).probability
        for state in protocol.design.states()
    }
