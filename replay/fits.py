"""Every policy again, from the learning rows that it contains and the original prior."""

from typing import NamedTuple

import numpy as np

from algorithm.core.arrays import Floats, Ints
from algorithm.trial import learner
from algorithm.trial.ladder import Block
from algorithm.trial.learner import Fit, NothingToLearn, Refused
from algorithm.trial.learning_rows import BadRows, Rows
from algorithm.trial.posterior import Hyperparameters
from algorithm.trial.protocol import Protocol
from replay import hyperparameters
from replay.findings import Report
from replay.format.long_table import Row
from replay.learning_rows import is_learnt_from
from replay.tables import BLOCK, POPULATION, Source, Study, floats, population, unpacked

TOLERANCE = 1e-9
ACTIVATING = {"rollback", "activate"}  # acts of the audit


class Learnt(NamedTuple):
    """All learning rows ever of some features, by participant, decision and row_seq; the last counts.

    removed: by participant, the number from which on none of theirs does.
    """

    participant: Ints
    decision: Ints
    row_seq: Ints
    states: Floats
    act_prob: Floats
    action: Floats
    outcome: Floats
    removed: dict[int, int]

    def upto(self, row_seq: int) -> tuple[Ints, Rows]:
        """Ids of the participants and their rows, as they were when `row_seq` was the last one."""
        gone = [person for person, since in self.removed.items() if since <= row_seq]
        seen = np.flatnonzero((self.row_seq <= row_seq) & ~np.isin(self.participant, gone))
        decision = self.decision[seen]
        kept = seen[np.append(decision[1:] != decision[:-1], True)] if len(seen) else seen
        members, codes = np.unique(self.participant[kept], return_inverse=True)
        columns = (self.states, self.act_prob, self.action, self.outcome)
        return members, Rows(codes.astype(np.int64), *(column[kept] for column in columns))


class Replayed(NamedTuple):
    """A policy that was computed again: its row, its numbers and the participants in the fit."""

    row: Row
    fit: Fit
    members: list[int]


def check(study: Study, report: Report) -> None:
    """Replay every policy, in their order."""
    features = {
        version: _learnt(study, version)
        for version in {one["feature_version"] for one in study.policies.values()}
    }
    pinned = {act["policy_id"] for act in _activations(study)}
    known: dict[int, Replayed] = {}
    for number, policy in sorted(study.policies.items()):
        protocol = study.protocol(policy)
        if protocol is None:
            continue
        replayed = _policy(study, policy, protocol, features[policy["feature_version"]], known, report)
        if replayed is None:
            continue
        _numbers(study, replayed, report)
        _blocks(study, replayed, report)
        # the policy that served while the next one was fitted: this one, or one that somebody activated
        known = {one: known[one] for one in known if one in pinned} | {number: replayed}


def _learnt(study: Study, feature_version: str) -> Learnt:
    rows = [
        (row, study.decisions[row["decision_id"]])
        for row in study.tables["learning_rows"]
        if row["decision_id"] in study.decisions
        and is_learnt_from(study.decisions[row["decision_id"]])
        and study.decisions[row["decision_id"]]["feature_version"] == feature_version
    ]
    rows.sort(key=lambda pair: (pair[1]["participant_id"], pair[1]["decision_index"], pair[0]["row_seq"]))
    return Learnt(
        np.array([row["participant_id"] for row, _ in rows], dtype=np.int64),
        np.array([row["decision_id"] for row, _ in rows], dtype=np.int64),
        np.array([row["row_seq"] for row, _ in rows], dtype=np.int64),
        np.array([decision["state"] for _, decision in rows], dtype=np.float64),
        np.array([decision["act_prob"] for _, decision in rows], dtype=np.float64),
        np.array([decision["action"] for _, decision in rows], dtype=np.float64),
        np.array([row["outcome"] for row, _ in rows], dtype=np.float64),
        study.removed,
    )


def name(policy: Row) -> str:
    """How the report names a policy."""
    return f"policy {policy['policy_id']}"


def _policy(
    study: Study,
    policy: Row,
    protocol: Protocol,
    learnt: Learnt,
    known: dict[int, Replayed],
    report: Report,
) -> Replayed | None:
    """The policy computed again; None where that cannot be, which is a divergence."""
    if policy["row_count"] == 0:
        return Replayed(policy, learner.prior_policy(protocol), [])
    members, rows = learnt.upto(policy["row_seq"])
    p = len(protocol.prior.mean)
    sigma_u = floats(policy["sigma_u"])
    if sigma_u.size != p * p:
        report.diverge("hyper-parameters", f"{name(policy)}, sigma_u", sigma_u.size, p * p)
        return None
    used = Hyperparameters(sigma_u.reshape(p, p), policy["noise_variance"])
    try:
        fitted = learner.fit(protocol, rows, len(members), used)
        learner.gate(fitted, protocol)
    except (NothingToLearn, Refused, BadRows, ValueError, np.linalg.LinAlgError) as error:
        report.diverge("posterior", name(policy), "a policy", f"{type(error).__name__}: {error}")
        return None
    replayed = Replayed(policy, fitted, members.tolist())
    hyperparameters.check(study, policy, protocol, rows, len(members), report)
    _reported(study, replayed, known, protocol, report)
    return replayed


def _reported(
    study: Study, replayed: Replayed, known: dict[int, Replayed], protocol: Protocol, report: Report
) -> None:
    """Log evidence, and the largest change against what the policy before served the participants with."""
    told, where = replayed.row["report"], name(replayed.row)
    fit = replayed.fit
    report.close(
        "fit report", f"{where}, log_evidence", told.get("log_evidence"), fit.log_evidence, TOLERANCE
    )
    before = known.get(_served_before(study, replayed.row))
    if before is None:
        return
    found = learner.largest_change(_served(before, replayed.members), (fit.beta, fit.V), protocol)
    stored = told.get("largest_change")
    damaged = any(source[1] == before.row["policy_id"] for source in study.recomputed)
    if stored != found and damaged:
        return
    report.close("fit report", f"{where}, largest_change", stored, found, hyperparameters.TOLERANCE)


def _served_before(study: Study, policy: Row) -> int:
    """The policy that served while this one was fitted: the one before, or one that was activated since."""
    before = study.policies.get(policy["policy_id"] - 1, policy)
    since = [
        act["policy_id"]
        for act in _activations(study)
        if before["created_at"] <= act["created_at"] <= policy["created_at"]
    ]
    return int(since[-1]) if since else int(policy["policy_id"]) - 1


def _activations(study: Study) -> list[Row]:
    """When which policy was let serve by hand, or because nothing was left to learn from."""
    acts = sorted(study.tables["audit"], key=lambda act: int(act["seq"]))
    return [
        {"created_at": act["created_at"], "policy_id": act["after"]["policy_id"]}
        for act in acts
        if act["act"] in ACTIVATING and act["after"]
    ]


def _served(policy: Replayed, people: list[int]) -> tuple[Floats, Floats]:
    """What a policy serves these participants with."""
    place = {person: at for at, person in enumerate(policy.members)}
    block = policy.fit.block
    means = [policy.fit.beta[place[one]] if one in place else block.mean for one in people]
    covariances = [policy.fit.V[place[one]] if one in place else block.covariance for one in people]
    return np.array(means), np.array(covariances)


def _numbers(study: Study, replayed: Replayed, report: Report) -> None:
    policy, fit, where = replayed.row, replayed.fit, name(replayed.row)
    contents = ("participants", "row_count")
    report.compare(
        "statistics hash",
        f"{where}, participants and row_count",
        [policy[name] for name in contents],
        [replayed.members, fit.rows],
    )
    numbers = {
        "mean": fit.population_mean,
        "covariance": fit.population_covariance.ravel(),
        "sigma_u": fit.sigma_u.ravel(),
        "noise_variance": fit.noise_variance,
    }
    for column, value in numbers.items():
        report.close("posterior", f"{where}, {column}", policy[column], value, TOLERANCE)
    if policy["statistics_hash"] != fit.statistics_hash and report.near.get("posterior"):
        # added up in another order, the last bits of a sum are others
        report.approximate("statistics hash", where, policy["statistics_hash"], fit.statistics_hash)
    else:
        report.compare("statistics hash", where, policy["statistics_hash"], fit.statistics_hash)
    _block(
        study,
        (POPULATION, policy["policy_id"], 0),
        fit.block,
        population(policy),
        {"advantage_mean": fit.block.mean, "advantage_covariance": fit.block.covariance.ravel()},
        policy,
        report,
    )


def _blocks(study: Study, replayed: Replayed, report: Report) -> None:
    """The stored block of each participant. Those of policies that never decided may have been dropped."""
    number, fit = replayed.row["policy_id"], replayed.fit
    upper = np.triu_indices(len(fit.block.mean))
    served = any(decision["policy_id"] == number for decision in study.tables["decisions"])
    for at, person in enumerate(replayed.members):
        stored = study.blocks.get((number, person))
        computed = Block(fit.beta[at], fit.V[at])
        if stored is None:
            if served:
                study.recomputed[BLOCK, number, person] = computed
            continue
        numbers = {"mean": computed.mean, "covariance": computed.covariance[upper]}
        _block(study, (BLOCK, number, person), computed, unpacked(stored), numbers, stored, report)
    strangers = sorted(
        person for policy, person in study.blocks if policy == number and person not in replayed.members
    )
    report.compare("block", f"{name(replayed.row)}, participants not in the fit", strangers, [])


def _block(
    study: Study,
    source: Source,
    computed: Block,
    stored: Block | None,
    numbers: dict[str, Floats],
    row: Row,
    report: Report,
) -> None:
    """Compare a stored block, unless it is unusable: then `faults` has the last word."""
    if not _is_usable(stored, computed):
        study.recomputed[source] = computed
        return
    kind = "block" if source[0] == BLOCK else "posterior"
    for column, value in numbers.items():
        report.close(kind, f"{told(source)}, {column}", row[column], value, TOLERANCE)


def _is_usable(stored: Block | None, computed: Block) -> bool:
    """Whether serving would have let the block decide, in some state at least."""
    if stored is None or stored.mean.shape != computed.mean.shape:
        return False
    if stored.covariance.shape != computed.covariance.shape:
        return False
    finite = np.isfinite(stored.mean).all() and np.isfinite(stored.covariance).all()
    return bool(finite and (np.diag(stored.covariance) >= 0).all())


def told(source: Source) -> str:
    """How the report names a block."""
    kind, policy, person = source
    return f"policy {policy}, participant {person}" if kind == BLOCK else f"policy {policy}, its population"


def faults(study: Study, report: Report) -> None:
    """Blocks that are unusable or gone: faults of the service where a decision fell back from them, else
    somebody has altered them since."""
    for source in study.recomputed:
        if source in study.fallen_from:
            report.faults.append(
                f"{told(source)}: the block is unusable or gone; a decision fell back from it"
            )
        else:
            report.diverge("block", told(source), "unusable or gone", "a block that decides")
