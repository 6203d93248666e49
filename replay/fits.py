"""Every policy again, from the learning rows that it contains and the original prior."""

from typing import NamedTuple, Self

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
ACTIVATING = {"rollback", "activate"}
"""The acts of the audit that let another policy serve."""


class RowHistory(NamedTuple):
    """All learning rows ever of a version of the features, by participant, decision and row_seq. Of several
    rows of a decision the last one counts.

    removed: for each participant who was removed from learning, the row_seq from which on none of their rows
    counts.
    """

    participant: Ints
    decision: Ints
    row_seq: Ints
    states: Floats
    act_prob: Floats
    action: Floats
    outcome: Floats
    removed: dict[int, int]

    @classmethod
    def of(cls, study: Study, feature_version: str) -> Self:
        """Gather the learning rows of a version of the features."""
        pairs = [
            (row, study.decisions[row["decision_id"]])
            for row in study.tables["learning_rows"]
            if row["decision_id"] in study.decisions
            and is_learnt_from(study.decisions[row["decision_id"]])
            and study.decisions[row["decision_id"]]["feature_version"] == feature_version
        ]
        pairs.sort(
            key=lambda pair: (pair[1]["participant_id"], pair[1]["decision_index"], pair[0]["row_seq"])
        )
        return cls(
            np.array([row["participant_id"] for row, _ in pairs], dtype=np.int64),
            np.array([row["decision_id"] for row, _ in pairs], dtype=np.int64),
            np.array([row["row_seq"] for row, _ in pairs], dtype=np.int64),
            np.array([decision["state"] for _, decision in pairs], dtype=np.float64),
            np.array([decision["act_prob"] for _, decision in pairs], dtype=np.float64),
            np.array([decision["action"] for _, decision in pairs], dtype=np.float64),
            np.array([row["outcome"] for row, _ in pairs], dtype=np.float64),
            study.removed,
        )

    def upto(self, row_seq: int) -> tuple[Ints, Rows]:
        """Return the ids of the participants and their rows, as they were when `row_seq` was the last one."""
        gone = [person for person, since in self.removed.items() if since <= row_seq]
        places = np.flatnonzero((self.row_seq <= row_seq) & ~np.isin(self.participant, gone))
        decision = self.decision[places]
        # the rows of a decision stand together, and the last of them counts
        last = places[np.append(decision[1:] != decision[:-1], True)] if len(places) else places
        members, codes = np.unique(self.participant[last], return_inverse=True)
        columns = (self.states, self.act_prob, self.action, self.outcome)
        return members, Rows(codes.astype(np.int64), *(column[last] for column in columns))


class Replayed(NamedTuple):
    """A policy that was computed again: its row, its numbers and the ids of the participants in the fit."""

    row: Row
    fit: Fit
    members: list[int]

    def serving(self, people: list[int]) -> tuple[Floats, Floats]:
        """Return the blocks with which the policy serves k people: means (k, q), covariances (k, q, q)."""
        place = {person: at for at, person in enumerate(self.members)}
        fit, block = self.fit, self.fit.block
        means = [fit.beta[place[person]] if person in place else block.mean for person in people]
        covariances = [fit.V[place[person]] if person in place else block.covariance for person in people]
        return np.array(means), np.array(covariances)


def check(study: Study, report: Report) -> None:
    """Replay every policy, in their order."""
    versions = {policy["feature_version"] for policy in study.policies.values()}
    histories = {version: RowHistory.of(study, version) for version in versions}
    pinned = {act["policy_id"] for act in _activations(study)}
    earlier: dict[int, Replayed] = {}
    for number, policy in sorted(study.policies.items()):
        protocol = study.protocol(policy)
        if protocol is None:
            continue  # `integrity` reports it
        replayed = _refitted(study, policy, protocol, histories[policy["feature_version"]], earlier, report)
        if replayed is None:
            continue
        _numbers(study, replayed, report)
        _blocks(study, replayed, report)
        # the policy that served while the next one was fitted: this one, or one that somebody activated
        earlier = {n: earlier[n] for n in earlier if n in pinned} | {number: replayed}


def name(policy: Row) -> str:
    """Return the name of a policy in the report."""
    return f"policy {policy['policy_id']}"


def _refitted(
    study: Study,
    policy: Row,
    protocol: Protocol,
    history: RowHistory,
    earlier: dict[int, Replayed],
    report: Report,
) -> Replayed | None:
    """Return the policy computed again; None where that cannot be, which is a divergence."""
    if policy["row_count"] == 0:
        return Replayed(policy, learner.prior_policy(protocol), [])
    members, rows = history.upto(policy["row_seq"])
    p = len(protocol.prior.mean)
    sigma_u = floats(policy["sigma_u"])
    if sigma_u.size != p * p:
        report.diverge("hyper-parameters", f"{name(policy)}, sigma_u", sigma_u.size, p * p)
        return None
    stored = Hyperparameters(sigma_u.reshape(p, p), policy["noise_variance"])
    try:
        fit = learner.fit(protocol, rows, len(members), stored)
        learner.gate(fit, protocol)
    except (NothingToLearn, Refused, BadRows, ValueError, np.linalg.LinAlgError) as error:
        report.diverge("posterior", name(policy), "a policy", f"{type(error).__name__}: {error}")
        return None
    replayed = Replayed(policy, fit, members.tolist())
    hyperparameters.check(study, policy, protocol, rows, len(members), report)
    _fit_report(study, replayed, earlier, protocol, report)
    return replayed


def _fit_report(
    study: Study, replayed: Replayed, earlier: dict[int, Replayed], protocol: Protocol, report: Report
) -> None:
    """Check the log evidence, and the largest change against the blocks with which the policy before served
    the participants."""
    policy, fit = replayed.row, replayed.fit
    fit_report, where = policy["report"], name(policy)
    stored_evidence = fit_report.get("log_evidence")
    report.close("fit report", f"{where}, log_evidence", stored_evidence, fit.log_evidence, TOLERANCE)
    # the policy before served while this one was fitted, or one that was activated since
    number = int(policy["policy_id"]) - 1
    begin = study.policies.get(number, policy)["created_at"]
    for act in _activations(study):
        if begin <= act["created_at"] <= policy["created_at"]:
            number = int(act["policy_id"])
    before = earlier.get(number)
    if before is None:
        return
    after = (fit.beta, fit.V)
    largest_change = learner.largest_change(before.serving(replayed.members), after, protocol)
    stored = fit_report.get("largest_change")
    unusable = any(source[1] == before.row["policy_id"] for source in study.recomputed)
    if stored != largest_change and unusable:
        return  # the fit compared with what was left of the policy before
    report.close("fit report", f"{where}, largest_change", stored, largest_change, hyperparameters.TOLERANCE)


def _activations(study: Study) -> list[Row]:
    """Return when which policy was activated, by hand or because nothing was left to learn from: `created_at`
    and `policy_id`, by the audit's order."""
    acts = sorted(study.tables["audit"], key=lambda act: int(act["seq"]))
    return [
        {"created_at": act["created_at"], "policy_id": act["after"]["policy_id"]}
        for act in acts
        if act["act"] in ACTIVATING and act["after"]
    ]


def _numbers(study: Study, replayed: Replayed, report: Report) -> None:
    policy, fit, where = replayed.row, replayed.fit, name(replayed.row)
    report.compare(
        "statistics hash",
        f"{where}, participants and row_count",
        [policy["participants"], policy["row_count"]],
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
    """Check the stored block of each participant. The blocks of policies that never decided may be gone."""
    number, fit = replayed.row["policy_id"], replayed.fit
    upper = np.triu_indices(len(fit.block.mean))
    has_decided = any(decision["policy_id"] == number for decision in study.tables["decisions"])
    for at, person in enumerate(replayed.members):
        stored = study.blocks.get((number, person))
        computed = Block(fit.beta[at], fit.V[at])
        if stored is None:
            if has_decided:
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
    """Compare a stored block, unless serving would let it decide in no state: then `faults` reports it."""
    if (
        stored is None
        or stored.mean.shape != computed.mean.shape
        or stored.covariance.shape != computed.covariance.shape
        or not (np.isfinite(stored.mean).all() and np.isfinite(stored.covariance).all())
        or not (np.diag(stored.covariance) >= 0).all()
    ):
        study.recomputed[source] = computed
        return
    kind = "block" if source[0] == BLOCK else "posterior"
    for column, value in numbers.items():
        report.close(kind, f"{block_name(source)}, {column}", row[column], value, TOLERANCE)


def block_name(source: Source) -> str:
    """Return the name of a block in the report."""
    kind, policy, person = source
    return f"policy {policy}, participant {person}" if kind == BLOCK else f"policy {policy}, its population"


def faults(study: Study, report: Report) -> None:
    """Report the blocks that are unusable or gone. They are faults of the service where a decision fell back
    from them; otherwise somebody has altered them since, which is a divergence."""
    for source in study.recomputed:
        where = block_name(source)
        if source in study.fallen_from:
            report.faults.append(f"{where}: the block is unusable or gone; a decision fell back from it")
        else:
            report.diverge("block", where, "unusable or gone", "a block that decides")
