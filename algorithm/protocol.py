"""Protocol documents: what a trial fixes before it starts, checked key by key.

A document is JSON. `load` completes a partial document from its protocol's defaults and refuses, by
dotted key, whatever it does not know or cannot use. The complete document identifies the trial's
mathematics: `digest` of it is stored with every decision and policy."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from algorithm.arrays import Floats, frozen
from algorithm.fields import (
    Check,
    ProtocolError,
    boolean,
    choice,
    constant,
    integer,
    optional,
    real,
    reals,
    section,
)
from algorithm.protocols import DESIGNS
from algorithm.protocols.design import Design

__all__ = ["Allocation", "Protocol", "ProtocolError", "canonical", "default_document", "digest", "load"]

ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "rebandit": {},
    "pooled": {},
    "fixed_probability": {"probability": 0.5},
}
"""Known algorithms and the defaults of their parameters."""

RULES = ("penalised_em", "fixed")
_POSITIVE = real(0, 1e9, exclude=(0,))
_DEFAULTS: Mapping[str, Any] = {
    "algorithm": "rebandit",
    "hyperparameters": {
        "rule": "penalised_em",
        "nu0": 30.0,
        "nu_s": 5.0,
        "subsample": 10_000,
    },
    "gate": {"mean_bound": None},
    "withdrawal": {"data": "keep"},
    "refit": {"min_interval_minutes": 15.0, "nightly_only": False, "nightly_hour": 2, "weekly_day": 0},
}


@dataclass(frozen=True, slots=True)
class Prior:
    """theta_pop ~ N(mean, diag(sd^2)), both (p,); participants' deviations start at covariance sigma_u I, the
    rewards' noise at variance noise_variance."""

    mean: Floats
    sd: Floats
    sigma_u: float
    noise_variance: float


@dataclass(frozen=True, slots=True)
class HyperparameterRule:
    """How (Sigma_u, noise variance) are found: `rule` penalised_em (penalised empirical Bayes) or fixed.
    The penalty weighs as much as nu0 participants of covariance sigma_u0 I and nu_s rows of the prior's
    noise variance. Above `subsample` participants a random subsample of that size is used."""

    rule: str
    nu0: float
    sigma_u0: float
    nu_s: float
    subsample: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """rho(x) = lower + (upper - lower) / (1 + C exp(-B x)), a probability of action 1 at advantage x."""

    lower: float
    upper: float
    B: float
    C: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Decision points in a study and in a day; hours until an open window is stale, hours that the app
    back end is asked to look back, and the lag, in decision points, between an action and the report of
    its outcome."""

    study_length: int
    points_per_day: int
    window_hours: float
    look_back_hours: float
    outcome_lag: int


@dataclass(frozen=True, slots=True)
class Refit:
    """When policies are refitted: least minutes between two fits, only at night or not, the hour of
    the nightly fit by the study's own clock and the weekday (0 Monday) on which it fits hyper-parameters
    too."""

    min_interval_minutes: float
    nightly_only: bool
    nightly_hour: int
    weekly_day: int


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """A loaded protocol. `document` is the complete one, `digest` its SHA-256, `state` the parameters
    that the design owns, `probability` the constant of the algorithm `fixed_probability` (None for the
    others)."""

    design: Design
    algorithm: str
    probability: float | None
    prior: Prior
    hyperparameters: HyperparameterRule
    allocation: Allocation
    mean_bound: float
    state: Mapping[str, Any]
    schedule: Schedule
    refit: Refit
    document: Mapping[str, Any]
    digest: str


def default_document(name: str) -> dict[str, Any]:
    """The complete document of protocol `name` with every default. Raises ProtocolError for an unknown
    name."""
    return _complete({"protocol": name})


def load(document: Mapping[str, Any]) -> Protocol:
    """Check `document`, complete it from its protocol's defaults, and return it ready for use.

    Only `protocol` is required. Raises ProtocolError, whose `key` is the dotted key at fault, for
    anything unknown, of a wrong type, out of range or contradictory."""
    whole = _complete(document)
    prior = whole["prior"]
    return Protocol(
        design=DESIGNS[whole["protocol"]],
        algorithm=whole["algorithm"],
        probability=whole["algorithm_parameters"].get("probability"),
        prior=Prior(frozen(prior["mean"]), frozen(prior["sd"]), prior["sigma_u"], prior["noise_variance"]),
        hyperparameters=HyperparameterRule(**whole["hyperparameters"]),
        allocation=Allocation(**whole["allocation"]),
        mean_bound=whole["gate"]["mean_bound"],
        state=whole["state"],
        schedule=Schedule(**whole["schedule"]),
        refit=Refit(**whole["refit"]),
        document=whole,
        digest=_sha256(_json(whole)),
    )


def canonical(document: Mapping[str, Any]) -> str:
    """The completed `document` as JSON with sorted keys and no spaces: equal documents give equal text."""
    return _json(_complete(document))


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of `canonical(document)`."""
    return _sha256(canonical(document))


def _json(whole: Mapping[str, Any]) -> str:
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _complete(document: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise ProtocolError("document", "must be an object")
    name = choice(*DESIGNS)("protocol", document.get("protocol"))
    algorithm = choice(*ALGORITHMS)("algorithm", document.get("algorithm", _DEFAULTS["algorithm"]))
    checks = _checks(DESIGNS[name], algorithm)
    whole: dict[str, Any] = section(checks, {key: {} for key in checks})(
        "", {**document, "algorithm": algorithm}
    )
    _check_together(whole)
    return deepcopy(whole)


def _checks(design: Design, algorithm: str) -> dict[str, Check]:
    """A check for each top-level key of a document for `design` and `algorithm`."""
    p = 3 * len(design.feature_names)
    own = design.defaults
    return {
        "protocol": choice(design.name),
        "algorithm": choice(algorithm),
        "algorithm_parameters": section(
            {name: real(0, 1, exclude=(0, 1)) for name in ALGORITHMS[algorithm]}, ALGORITHMS[algorithm]
        ),
        "prior": section(_prior_checks(p), own["prior"]),
        "hyperparameters": section(
            _HYPERPARAMETERS, {**_DEFAULTS["hyperparameters"], **own["hyperparameters"]}
        ),
        "allocation": section(_ALLOCATION, own["allocation"]),
        "gate": section({"mean_bound": optional(_POSITIVE, 10 * design.reward_sd)}, _DEFAULTS["gate"]),
        "state": section(design.state_checks, own["state"]),
        "schedule": section({**_SCHEDULE, "outcome_lag": constant(design.outcome_lag)}, own["schedule"]),
        "refit": section(_REFIT, _DEFAULTS["refit"]),
        "withdrawal": section({"data": choice("keep", "remove_from_learning")}, _DEFAULTS["withdrawal"]),
    }


def _prior_checks(p: int) -> dict[str, Check]:
    return {
        "mean": reals(p, real(-1e9, 1e9)),
        "sd": reals(p, _POSITIVE),
        "sigma_u": real(0, 1e9),
        "noise_variance": _POSITIVE,
    }


_HYPERPARAMETERS: Mapping[str, Check] = {
    "rule": choice(*RULES),
    "nu0": _POSITIVE,
    "sigma_u0": _POSITIVE,
    "nu_s": _POSITIVE,
    "subsample": integer(10, 10_000_000),
}
_ALLOCATION: Mapping[str, Check] = {
    "lower": real(0, 1, exclude=(0, 1)),
    "upper": real(0, 1, exclude=(0, 1)),
    "B": real(0, 1e6, exclude=(0,)),
    "C": _POSITIVE,
}
_SCHEDULE: Mapping[str, Check] = {
    "study_length": integer(1, 100_000),
    "points_per_day": integer(1, 48),
    "window_hours": real(0, 8760, exclude=(0,)),
    "look_back_hours": real(0, 8760),
}
_REFIT: Mapping[str, Check] = {
    "min_interval_minutes": real(0, 525_600),
    "nightly_only": boolean,
    "nightly_hour": integer(0, 23),
    "weekly_day": integer(0, 6),
}


def _check_together(whole: Mapping[str, Any]) -> None:
    """Refuse values that are possible one by one and not together."""
    lower, upper = whole["allocation"]["lower"], whole["allocation"]["upper"]
    if lower > upper:
        raise ProtocolError("allocation.upper", f"{upper} is below allocation.lower, {lower}")
    probability = whole["algorithm_parameters"].get("probability")
    if probability is not None and not lower <= probability <= upper:
        raise ProtocolError(
            "algorithm_parameters.probability", f"{probability} is outside [{lower}, {upper}]"
        )
    if whole["hyperparameters"]["rule"] == "penalised_em" and whole["prior"]["sigma_u"] == 0:
        raise ProtocolError("prior.sigma_u", "must be above 0 where hyperparameters.rule is penalised_em")
