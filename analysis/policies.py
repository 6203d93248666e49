"""What a stored policy, or any fixed probability, would have done at the decisions of a trial."""

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
    """A policy's numbers: of all participants `mean` (p,), `covariance` and `sigma_u` (p, p) and
    `noise_variance`; the ids of the `participants` in the fit; the advantage of who is not in it,
    `advantage_mean` (q,) and `advantage_covariance` (q, q), and of who is, by participant id, in `blocks`. It
    contains the learning rows up to `row_seq` and was fitted under version `protocol_id` of the protocol.
    Blocks of policies that served nobody are not kept."""

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
    """The protocol in force when the export was made: the newest one."""
    return list(versions(export).values())[-1]


def versions(export: Export) -> dict[int, Protocol]:
    """Every version of the protocol, by its id, in their order."""
    table = export.table("protocols")
    ids = table.numbers("id").astype(int).tolist()
    return {one: load_protocol(document) for one, document in zip(ids, table.list("document"), strict=True)}


def policy(export: Export, policy_id: int) -> Policy:
    """Policy `policy_id`. Raises BadExport where there is none."""
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
        _blocks(export, policy_id, q),
    )


def _blocks(export: Export, policy_id: int, q: int) -> dict[int, tuple[Floats, Floats]]:
    table = export.table("policy_blocks")
    found = {}
    for row in np.flatnonzero(table.numbers("policy_id") == policy_id):
        upper = np.zeros((q, q))
        upper[np.triu_indices(q)] = table.list("covariance")[row]
        whole = upper + np.triu(upper, 1).T
        found[int(table.numbers("participant_id")[row])] = (np.array(table.list("mean")[row]), whole)
    return found


def decides(policy: Policy, protocol: Protocol, participant: Ints, states: Floats) -> Floats:
    """The probability of a message, (n,), that `policy` gives `participant` (n,) at `states` (n, s). NaN
    where the block that would decide is not kept or no distribution."""
    if protocol.probability is not None:
        return np.full(len(participant), protocol.probability)
    found = np.full(len(participant), np.nan)
    features = protocol.design.features(states)
    for person in np.unique(participant).tolist():
        member = person in policy.participants
        if member and person not in policy.blocks:
            continue
        newcomer = (policy.advantage_mean, policy.advantage_covariance)
        mean, covariance = policy.blocks[person] if member else newcomer
        rows = participant == person
        means, variances = features[rows] @ mean, ((features[rows] @ covariance) * features[rows]).sum(axis=1)
        if np.isfinite(means).all() and (variances >= 0).all():
            found[rows] = probabilities(means, variances, protocol.allocation)
    return found


def alternative(export: Export, trial: Trial, name: str) -> Floats:
    """The probability of a message, (n,), under the policy called `name`: a number between 0 and 1, or
    `policy:ID`. NaN where the state is not known. Raises BadExport for another name."""
    kind, _, number = name.partition(":")
    if kind == "policy" and number.isdigit():
        known = np.isfinite(trial.states()).all(axis=1)
        found = np.full(trial.table.rows, np.nan)
        chosen = policy(export, int(number))
        found[known] = decides(chosen, protocol(export), trial.participant[known], trial.states()[known])
        return found
    try:
        probability = float(name)
    except ValueError:
        raise BadExport(f"{name!r} is neither a probability nor policy:ID") from None
    if not 0 <= probability <= 1:
        raise BadExport(f"{name} is no probability")
    return np.full(len(trial.participant), probability)
