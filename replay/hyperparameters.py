"""Hyper-parameters again: those of the policy before, or what a search of their own finds in the rows."""

from dataclasses import asdict
from typing import Any

from algorithm.trial.hyperparameters import HyperparameterFit, fit_hyperparameters
from algorithm.trial.learning_rows import Rows
from algorithm.trial.posterior import Hyperparameters
from algorithm.trial.protocol import Protocol
from replay.findings import Report
from replay.format.long_table import Row
from replay.tables import Study, floats

TOLERANCE = 1e-5  # a search for a maximum ends a little elsewhere under another arithmetic


def check(
    study: Study, policy: Row, protocol: Protocol, rows: Rows, participants: int, report: Report
) -> None:
    """Compare the hyper-parameters of a fitted policy, and the report of their own fit where it had one."""
    where = f"policy {policy['policy_id']}, hyper-parameters"
    base = _base(study, policy)
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
    report.close("hyper-parameters", f"{where}, sigma_u", stored, used.sigma_u.ravel(), TOLERANCE)
    report.close(
        "hyper-parameters",
        f"{where}, noise_variance",
        policy["noise_variance"],
        used.noise_variance,
        TOLERANCE,
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
            tolerance = 1.0 if name_ == "scaled_gradient" else TOLERANCE
            report.close("fit report", f"{where}, {name_}", stored.get(name_), value, tolerance)
        elif name_ == "evaluations" and stored.get(name_) != value:
            report.approximate("fit report", f"{where}, {name_}", stored.get(name_), value)
        else:
            report.compare("fit report", f"{where}, {name_}", stored.get(name_), value)


def _path(where: str, stored: Any, found: list[float], report: Report) -> None:
    """The way to the maximum: under another arithmetic it may have other steps, but the same ends."""
    if not isinstance(stored, list) or len(stored) != len(found):
        report.approximate("fit report", where, stored, found)
    else:
        report.close("fit report", where, stored, found, TOLERANCE)


def _base(study: Study, policy: Row) -> Row | None:
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
