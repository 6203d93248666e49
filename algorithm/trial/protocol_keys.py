"""The keys of a protocol document: a check and a default for each."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from algorithm.core.checks import (
    Check,
    ProtocolError,
    boolean,
    choice,
    constant,
    hhmm,
    integer,
    optional,
    real,
    reals,
    section,
)
from algorithm.trial.designs import DESIGNS
from algorithm.trial.designs.design import Design

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
    "fallback": {"order": "own_population_previous_prior", "unknown_state_probability": 0.5},
    "missing_data": {
        "outcome": "no_learning_row",
        "earlier_reward": "left_out",
        "state": "unknown_state_probability",
        "earlier_features": "left_out",
    },
    "withdrawal": {"data": "keep"},
    "envelope": {"quiet_hours": None, "cool_down_hours": None, "daily_cap": None, "weekly_cap": None},
    "refit": {"min_interval_minutes": 15.0, "nightly_only": False, "nightly_hour": 2, "weekly_day": 0},
}


def complete(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` completed with every key, each checked. Raises ProtocolError."""
    if not isinstance(document, Mapping):
        raise ProtocolError("document", "must be an object")
    name = choice(*DESIGNS)("protocol", document.get("protocol"))
    algorithm = choice(*ALGORITHMS)("algorithm", document.get("algorithm", _DEFAULTS["algorithm"]))
    checks = _checks(DESIGNS[name], algorithm)
    partial = {"feature_version": DESIGNS[name].feature_version, **document, "algorithm": algorithm}
    whole: dict[str, Any] = section(checks, {key: {} for key in checks})("", partial)
    # values that are possible one by one but not together
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
    quiet = whole["envelope"]["quiet_hours"]
    if quiet is not None and quiet["from"] == quiet["to"]:
        raise ProtocolError("envelope.quiet_hours.to", "must differ from envelope.quiet_hours.from")
    return deepcopy(whole)  # its parts may be parts of the defaults


def _checks(design: Design, algorithm: str) -> dict[str, Check]:
    """Return a check for each top-level key of a document for `design` and `algorithm`."""
    p = 3 * len(design.feature_names)
    own = design.defaults
    prior_checks: dict[str, Check] = {
        "mean": reals(p, real(-1e9, 1e9)),
        "sd": reals(p, _POSITIVE),
        "sigma_u": real(0, 1e9),
        "noise_variance": _POSITIVE,
    }
    return {
        "protocol": choice(design.name),
        "feature_version": choice(design.feature_version),
        "algorithm": choice(algorithm),
        "algorithm_parameters": section(
            {name: real(0, 1, exclude=(0, 1)) for name in ALGORITHMS[algorithm]}, ALGORITHMS[algorithm]
        ),
        "prior": section(prior_checks, own["prior"]),
        "hyperparameters": section(
            _HYPERPARAMETERS, {**_DEFAULTS["hyperparameters"], **own["hyperparameters"]}
        ),
        "allocation": section(_ALLOCATION, own["allocation"]),
        "gate": section({"mean_bound": optional(_POSITIVE, 10 * design.reward_sd)}, _DEFAULTS["gate"]),
        "state": section(design.state_checks, own["state"]),
        "schedule": section({**_SCHEDULE, "outcome_lag": constant(design.outcome_lag)}, own["schedule"]),
        "refit": section(_REFIT, _DEFAULTS["refit"]),
        **{name: section(_RULES[name], _DEFAULTS[name]) for name in _RULES},
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
_RULES: Mapping[str, Mapping[str, Check]] = {
    "fallback": {
        "order": choice("own_population_previous_prior"),
        "unknown_state_probability": real(0.5, 0.5),
    },
    "missing_data": {
        "outcome": choice("no_learning_row"),
        "earlier_reward": choice("left_out"),
        "state": choice("unknown_state_probability"),
        "earlier_features": choice("left_out"),
    },
    "withdrawal": {"data": choice("keep", "remove_from_learning")},
    "envelope": {
        "quiet_hours": optional(section({"from": hhmm, "to": hhmm}, {}), None),
        "cool_down_hours": optional(real(0, 168, exclude=(0,)), None),
        "daily_cap": optional(integer(0, 48), None),
        "weekly_cap": optional(integer(0, 336), None),
    },
}
