"""Hyper-parameters again: equal to those of the policy before, or found in the rows by a search of their
own."""

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
    stored_fit = policy["report"].get("hyperparameters")
    if stored_fit is None:
        report.compare("hyper-parameters", where, list(_of(policy)), list(_of(base)))
        return
    p = len(protocol.prior.mean)
    previous = Hyperparameters(floats(base["sigma_u"]).reshape(p, p), base["noise_variance"])
    fit = fit_hyperparameters(protocol, rows, participants, previous)
    sigma_u, noise_variance = fit.hyperparameters.sigma_u, fit.hyperparameters.noise_variance
    kind, stored = "hyper-parameters", floats(policy["sigma_u"])
    report.close(kind, f"{where}, sigma_u", stored, sigma_u.ravel(), TOLERANCE)
    report.close(kind, f"{where}, noise_variance", policy["noise_variance"], noise_variance, TOLERANCE)
    _evidence(where, stored_fit, fit, report)


def _evidence(where: str, stored_fit: dict[str, Any], fit: HyperparameterFit, report: Report) -> None:
    """Compare the report of a hyper-parameter fit."""
    kind = "fit report"
    outcome = {"accepted": fit.accepted, "reason": fit.reason}
    report.compare(kind, where, {name: stored_fit.get(name) for name in outcome}, outcome)
    stored_evidence = stored_fit.get("evidence") or {}
    for name, value in (asdict(fit.evidence) if fit.evidence else {}).items():
        place, stored = f"{where}, {name}", stored_evidence.get(name)
        if isinstance(value, tuple):
            # the way to the maximum: under another arithmetic it may have other steps, but the same ends
            if isinstance(stored, list) and len(stored) == len(value):
                report.close(kind, place, stored, list(value), TOLERANCE)
            else:
                report.approximate(kind, place, stored, list(value))
        elif isinstance(value, float):
            # the gradient at the end is all rounding: only its size can be compared
            tolerance = 1.0 if name == "scaled_gradient" else TOLERANCE
            report.close(kind, place, stored, value, tolerance)
        elif name == "evaluations" and stored != value:
            report.approximate(kind, place, stored, value)
        else:
            report.compare(kind, place, stored, value)


def _base(study: Study, policy: Row) -> Row | None:
    """Return the policy that served while this one was fitted: the one before, or, where the study went back
    to an older policy, the latest one with the hyper-parameters that were used on."""
    before = [number for number in sorted(study.policies, reverse=True) if number < policy["policy_id"]]
    has_new = "hyperparameters" in policy["report"] and policy["report"]["hyperparameters"].get("accepted")
    if not has_new:
        for number in before:
            other = study.policies[number]
            if _of(other) == _of(policy):
                return other
    return study.policies[before[0]] if before else None


def _of(policy: Row) -> tuple[Any, ...]:
    return policy["noise_variance"], policy["sigma_u"]
