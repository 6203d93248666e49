"""Protocol documents, which fix a trial's rules before it starts, checked key by key.

A document is JSON. `load` completes a partial document from its protocol's defaults and refuses, by dotted
key, whatever it does not know or cannot use. The complete document identifies the trial's mathematics: its
`digest` is stored with every decision and policy. A key that later code adds has a default that means what
the code did before, so a stored document keeps its meaning, and its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from algorithm.core.arrays import Floats, frozen
from algorithm.core.checks import ProtocolError
from algorithm.trial.designs import DESIGNS
from algorithm.trial.designs.design import Design
from algorithm.trial.envelope import Envelope, envelope_of
from algorithm.trial.protocol_keys import complete

__all__ = [
    "Allocation",
    "Protocol",
    "ProtocolError",
    "canonical",
    "default_document",
    "digest",
    "identity",
    "load",
    "stored",
]


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior theta_pop ~ N(mean, diag(sd^2)), both (p,). Participants' deviations start at covariance
    sigma_u I, the rewards' noise at variance noise_variance."""

    mean: Floats
    sd: Floats
    sigma_u: float
    noise_variance: float


@dataclass(frozen=True, slots=True)
class HyperparameterRule:
    """The rule that finds (Sigma_u, noise variance): penalised_em (penalised empirical Bayes) or fixed. The
    penalty weighs as much as nu0 participants of covariance sigma_u0 I and nu_s rows of the prior's noise
    variance. With more than `subsample` participants a random subsample of that size is used."""

    rule: str
    nu0: float
    sigma_u0: float
    nu_s: float
    subsample: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """The curve rho(x) = lower + (upper - lower) / (1 + C exp(-B x)), the probability of action 1 at
    advantage x."""

    lower: float
    upper: float
    B: float
    C: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The numbers of decision points in a study and in a day, the hours until an open window is stale, the
    hours that the app's back end is asked to look back, and the lag, in decision points, between an action
    and the report of its outcome."""

    study_length: int
    points_per_day: int
    window_hours: float
    look_back_hours: float
    outcome_lag: int


@dataclass(frozen=True, slots=True)
class Refit:
    """The times of refits: the least minutes between two fits, whether they happen only at night, the hour of
    the nightly fit by the study's own clock, and the weekday (0 is Monday) on which that fit finds
    hyper-parameters too."""

    min_interval_minutes: float
    nightly_only: bool
    nightly_hour: int
    weekly_day: int


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """A loaded protocol. `document` is the complete document, `digest` its SHA-256, `state` the parameters of
    the design, `probability` the constant of the algorithm `fixed_probability` (None under the others)."""

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
    envelope: Envelope
    document: Mapping[str, Any]
    digest: str


def default_document(name: str) -> dict[str, Any]:
    """Return the complete document of protocol `name` with every default. Raises ProtocolError for an unknown
    name."""
    return complete({"protocol": name})


def load(document: Mapping[str, Any]) -> Protocol:
    """Check `document`, complete it from its protocol's defaults, and return it ready for use.

    Only `protocol` is required. Raises ProtocolError, whose `key` is the dotted key at fault, for
    anything unknown, of a wrong type, out of range or contradictory."""
    whole = complete(document)
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
        envelope=envelope_of(whole["envelope"]),
        document=whole,
        digest=_sha256(_json(whole)),
    )


def stored(document: Mapping[str, Any], identity: str) -> Protocol:
    """Load a stored document under the hash it was stored with. Raises ProtocolError.

    Keys that were added to the code after it was stored take their defaults."""
    # the digest of the completed document would change with every key that later code adds
    return replace(load(document), digest=identity)


def identity(document: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a stored document as it is, which is the hash it was stored
    with."""
    return _sha256(_json(document))


def canonical(document: Mapping[str, Any]) -> str:
    """Return the completed `document` as JSON with sorted keys and no spaces, so equal documents give equal
    texts."""
    return _json(complete(document))


def digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of `canonical(document)`."""
    return _sha256(canonical(document))


def _json(whole: Mapping[str, Any]) -> str:
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
