"""Every policy again, from the learning rows that it contains and the original prior."""

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from algorithm import learner
from algorithm.arrays import Floats, Ints
from algorithm.hyperparameters import HyperparameterFit, fit_hyperparameters
from algorithm.ladder import Block
from algorithm.learner import Fit, NothingToLearn, Refused
from algorithm.posterior import Hyperparameters
from algorithm.protocol import Protocol
from algorithm.rows import BadRows, Rows
from replay.report import Report
from replay.rows import is_learnt_from
from replay.study import BLOCK, POPULATION, Source, Study, floats, population, unpacked
from replay.trial import Row

TOLERANCE = 1e-9
SEARCH_TOLERANCE = 1e-5  # a search for a maximum ends a little elsewhere under another arithmetic
SKIPPED = {"fit_seconds"}  # of a report: the time that the fit took


class Learnt(NamedTuple):
    """All learning rows ever, by participant, decision and row_seq; the last version of a decision counts."""

    participant: Ints
    decision: Ints
    row_seq: Ints
    states: Floats
    act_prob: Floats
    action: Floats
    outcome: Floats

    def upto(self, row_seq: int) -> tuple[Ints, Rows]:
        """Ids of the participants and their rows, as they were when `row_seq` was the last one."""
        seen = np.flatnonzero(self.row_seq <= row_seq)
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
    learnt = _learnt(study)
    known: dict[int, Replayed] = {}
    for number, policy in sorted(study.policies.items()):
        protocol = study.protocol(policy)
        if protocol is None:
            continue
        replayed = _policy(study, policy, protocol, learnt, known, report)
        if replayed is None:
            continue
        _numbers(study, replayed, report)
        _blocks(study, replayed, report)
        known = {number: replayed}  # the policy that served while the next one was fitted


def _learnt(study: Study) -> Learnt:
    rows = [
        (row, study.decisions[row["decision_id"]])
        for row in study.tables["learning_rows"]
        if row["decision_id"] in study.decisions and is_learnt_from(study.decisions[row["decision_id"]])
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
    if policy["policy_id"] == 0:
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
    base = _base(study, policy, known)
    _hyperparameters(policy, base, protocol, rows, len(members), report)
    _reported(study, replayed, known, protocol, report)
    return replayed


def _base(study: Study, policy: Row, known: dict[int, Replayed]) -> Row | None:
    """The policy that served while this one was fitted: the one before, or, where the study went back to an
    older one, the latest with the hyper-parameters that were used on."""
    before = [number for number in sorted(study.policies, reverse=True) if number < policy["policy_id"]]
    fitted = "hyperparameters" in policy["report"] and policy["report"]["hyperparameters"].get("accepted")
    if not fitted:
        for number in before:
            other = study.policies[number]
            if _of(other) == _of(policy):
                return other
    return study.policies[before[0]] if before else None


def _of(policy: Row) -> tuple[Any, ...]:
    return policy["noise_variance"], policy["sigma_u"]


def _hyperparameters(
    policy: Row, base: Row | None, protocol: Protocol, rows: Rows, participants: int, report: Report
) -> None:
    where = f"{name(policy)}, hyper-parameters"
    if base is None:
        report.diverge("hyper-parameters", where, "a policy", "no policy before it")
        return
    asked = policy["report"].get("hyperparameters")
    p = len(protocol.prior.mean)
    if asked is None:
        report.compare("hyper-parameters", where, list(_of(policy)), list(_of(base)))
        return
    before = Hyperparameters(floats(base["sigma_u"]).reshape(p, p), base["noise_variance"])
    found = fit_hyperparameters(protocol, rows, participants, before)
    used, stored = found.hyperparameters, floats(policy["sigma_u"])
    report.close("hyper-parameters", f"{where}, sigma_u", stored, used.sigma_u.ravel(), SEARCH_TOLERANCE)
    report.close(
        "hyper-parameters",
        f"{where}, noise_variance",
        policy["noise_variance"],
        used.noise_variance,
        SEARCH_TOLERANCE,
    )
    _evidence(where, asked, found, report)


def _evidence(where: str, asked: dict[str, Any], found: HyperparameterFit, report: Report) -> None:
    told = {"accepted": found.accepted, "reason": found.reason}
    report.compare("fit report", where, {name: asked.get(name) for name in told}, told)
    evidence = asdict(found.evidence) if found.evidence else {}
    stored = asked.get("evidence") or {}
    for name_, value in evidence.items():
        if isinstance(value, tuple):
            _path(f"{where}, {name_}", stored.get(name_), list(value), report)
        elif isinstance(value, float):
            # the gradient at the end is all rounding: only its size can be asked for
            tolerance = 1.0 if name_ == "scaled_gradient" else SEARCH_TOLERANCE
            report.close("fit report", f"{where}, {name_}", stored.get(name_), value, tolerance)
        else:
            report.compare("fit report", f"{where}, {name_}", stored.get(name_), value)


def _path(where: str, stored: Any, found: list[float], report: Report) -> None:
    """The way to the maximum: under another arithmetic it may have other steps, but the same ends."""
    if not isinstance(stored, list) or len(stored) != len(found):
        report.approximate("fit report", where, stored, found)
    else:
        report.close("fit report", where, stored, found, SEARCH_TOLERANCE)


def _reported(
    study: Study, replayed: Replayed, known: dict[int, Replayed], protocol: Protocol, report: Report
) -> None:
    """Log evidence, and the largest change against what the policy before served the participants with."""
    told, where = replayed.row["report"], name(replayed.row)
    fit = replayed.fit
    report.close(
        "fit report", f"{where}, log_evidence", told.get("log_evidence"), fit.log_evidence, TOLERANCE
    )
    before = known.get(replayed.row["policy_id"] - 1)
    if before is None:
        return
    found = learner.largest_change(_served(before, replayed.members), (fit.beta, fit.V), protocol)
    stored = told.get("largest_change")
    damaged = any(source[1] == before.row["policy_id"] for source in study.sound)
    if stored != found and (damaged or not _is_next(study, replayed.row)):
        return
    report.close("fit report", f"{where}, largest_change", stored, found, SEARCH_TOLERANCE)


def _is_next(study: Study, policy: Row) -> bool:
    """Whether the policy before was the one that served: nobody let an older one serve meanwhile."""
    acts = {act["act"] for act in study.tables["audit"] if act["created_at"] <= policy["created_at"]}
    return not acts & {"rollback", "activate", "roll_back"}


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
                study.sound[BLOCK, number, person] = computed
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
        study.sound[source] = computed
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
    for source in study.sound:
        if source in study.damaged:
            report.faults.append(
                f"{told(source)}: the block is unusable or gone; a decision fell back from it"
            )
        else:
            report.diverge("block", told(source), "unusable or gone", "a block that decides")
