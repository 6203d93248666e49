"""Policies: what was learnt, version by version, and the probabilities it stands for."""

from datetime import datetime
from typing import Any

import numpy as np
from pydantic import BaseModel
from sqlalchemy.orm import Session

from algorithm.ladder import Block, randomise
from algorithm.protocol import Protocol
from api import serving
from api.auth import Caller
from api.endpoint import Domain, Reply
from api.errors import Fault, Refusal
from models import policies
from models.policies import Policy
from models.session import transact

domain = Domain("policies")


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


class PolicyList(Reply):
    """All policies of the study, oldest first."""

    policies: list[PolicySeen]


@domain.operation("GET", "/policies", roles={"client", "researcher", "admin"})
def list_policies(caller: Caller) -> PolicyList:
    """Every policy of your study."""
    return PolicyList(
        policies=transact(
            lambda session: [_seen(session, policy) for policy in policies.listed(session, caller.study_id)]
        )
    )


@domain.operation(
    "GET", "/policies/<int:policy_id>", roles={"client", "researcher", "admin"}, faults=(Fault.UNKNOWN,)
)
def show_policy(policy_id: int, caller: Caller) -> PolicyReply:
    """One policy of your study."""
    return PolicyReply(policy=transact(lambda session: _one(session, caller.study_id, policy_id)))


def _one(session: Session, study_id: int, policy_id: int) -> PolicySeen:
    policy = policies.numbered(session, study_id, policy_id)
    if policy is None:
        raise Refusal(Fault.UNKNOWN)
    return _seen(session, policy)


def _seen(session: Session, policy: Policy) -> PolicySeen:
    protocol = serving.loaded(session, policy.protocol_id)
    return PolicySeen(
        policy_id=policy.policy_id,
        algorithm=policy.algorithm,
        rows=policy.row_count,
        participants=len(policy.participants),
        noise_variance=policy.noise_variance,
        act_prob=_act_prob(policy, protocol),
        report=policy.report,
        protocol_hash=policy.protocol_hash,
        code_version=policy.code_version,
        created_at=policy.created_at,
    )


def _act_prob(policy: Policy, protocol: Protocol) -> dict[str, float]:
    mean = np.array(policy.advantage_mean)
    block = Block(mean, np.array(policy.advantage_covariance).reshape(mean.size, mean.size))
    return {
        "".join(f"{value:g}" for value in state): randomise(
            protocol.design.features(state), block, protocol
        ).probability
        for state in protocol.design.states()
    }
