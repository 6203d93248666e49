"""Stored policies, and the probabilities that they or a constant would have given at a trial's decisions."""

from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Floats, Ints
from algorithm.trial.allocation import probabilities
from algorithm.trial.protocol import Protocol
from algorithm.trial.protocol import load as load_protocol
from analysis.export_reader import BadExport, Export
from analysis.long_table import Trial


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A policy's numbers.

    `mean` (p,), `covariance`, `sigma_u` (p, p) and `noise_variance` are the population's; `participants` are
    the ids of the people in the fit. The advantage is `advantage_mean` (q,) and `advantage_covariance` (q, q)
    for everybody who is not in the fit, and in `blocks`, by participant id, for those who are. (Blocks of
    policies that served nobody are not in the export.) The policy contains the learning rows up to `row_seq`
    and was fitted under version `protocol_id` of the protocol."""

    policy_id: int
    protocol_id: int
    mean: Floats
    covariance: Floats
    sigma_u: Floats
    noise_variance: float
    advantage_mean: Floats
    advantage_covariance: Floats
    row_seq: int
    participants: frozenset[int]
    blocks: dict[int, tuple[Floats, Floats]]


def protocol(export: Export) -> Protocol:
    """Return the protocol in force when the export was made, which is the newest one."""
    return list(versions(export).values())[-1]


def versions(export: Export) -> dict[int, Protocol]:
    """Return every version of the protocol, by its id, in their order."""
    table = export.table("protocols")
    rows = zip(table.numbers("id").astype(int).tolist(), table.list("document"), strict=True)
    return {number: load_protocol(document) for number, document in rows}


def policy(export: Export, policy_id: int) -> Policy:
    """Return policy `policy_id`. Raises BadExport where there is none."""
    table = export.table("policies")
    places = np.flatnonzero(table.numbers("policy_id") == policy_id)
    if places.size == 0:
        raise BadExport(f"there is no policy {policy_id}")
    row = int(places[0])
    numbers = {
        name: np.array(table.list(name)[row], dtype=np.float64)
        for name in ("mean", "covariance", "sigma_u", "advantage_mean", "advantage_covariance")
    }
    p, q = len(numbers["mean"]), len(numbers["advantage_mean"])
    stored = export.table("policy_blocks")
    blocks = {}
    for place in np.flatnonzero(stored.numbers("policy_id") == policy_id):
        upper = np.zeros((q, q))
        upper[np.triu_indices(q)] = stored.list("covariance")[place]
        covariance = upper + np.triu(upper, 1).T
        person = int(stored.numbers("participant_id")[place])
        blocks[person] = (np.array(stored.list("mean")[place]), covariance)
    return Policy(
        policy_id,
        int(table.numbers("protocol_id")[row]),
        numbers["mean"],
        numbers["covariance"].reshape(p, p),
        numbers["sigma_u"].reshape(p, p),
        float(table.numbers("noise_variance")[row]),
        numbers["advantage_mean"],
        numbers["advantage_covariance"].reshape(q, q),
        int(np.nan_to_num(table.numbers("row_seq")[row])),
        frozenset(table.list("participants")[row]),
        blocks,
    )


def decides(policy: Policy, protocol: Protocol, participant: Ints, states: Floats) -> Floats:
    """Return the probability of a message, (n,), that `policy` gives `participant` (n,) at `states` (n, s).
    It is NaN where the block that would decide is not in the export or gives no distribution."""
    if protocol.probability is not None:
        return np.full(len(participant), protocol.probability)
    act_prob = np.full(len(participant), np.nan)
    features = protocol.design.features(states)
    for person in np.unique(participant).tolist():
        member = person in policy.participants
        if member and person not in policy.blocks:
            continue  # the export has no blocks of policies that served nobody
        newcomer = (policy.advantage_mean, policy.advantage_covariance)
        mean, covariance = policy.blocks[person] if member else newcomer
        rows = participant == person
        means, variances = features[rows] @ mean, ((features[rows] @ covariance) * features[rows]).sum(axis=1)
        if np.isfinite(means).all() and (variances >= 0).all():
            act_prob[rows] = probabilities(means, variances, protocol.allocation)
    return act_prob


def alternative(export: Export, trial: Trial, name: str) -> Floats:
    """Return the probability of a message, (n,), under the policy called `name`: a number between 0 and 1, or
    `policy:ID`. It is NaN where the state is not known. Raises BadExport for another name."""
    kind, _, number = name.partition(":")
    if kind == "policy" and number.isdigit():
        rows = np.isfinite(trial.states()).all(axis=1)
        act_prob = np.full(trial.table.rows, np.nan)
        other = policy(export, int(number))
        act_prob[rows] = decides(other, protocol(export), trial.participant[rows], trial.states()[rows])
        return act_prob
    try:
        probability = float(name)
    except ValueError:
        raise BadExport(f"{name!r} is neither a probability nor policy:ID") from None
    if not 0 <= probability <= 1:
        raise BadExport(f"{name} is no probability")
    return np.full(len(trial.participant), probability)
