"""Protocol documents: completed, checked key by key, and identified by their digest."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.trial.protocol import ProtocolError, canonical, default_document, digest, load

NAMES = ("miwaves", "oralytics")


def nested(key: str, value: Any) -> dict[str, Any]:
    """{"protocol": "miwaves", ...} with `value` at the dotted `key`."""
    head, _, tail = key.partition(".")
    return {"protocol": "miwaves", head: {tail: value} if tail else value}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_enough(name: str) -> None:
    protocol = load({"protocol": name})
    p = 3 * len(protocol.design.feature_names)
    assert protocol.document == default_document(name)
    assert protocol.prior.mean.shape == protocol.prior.sd.shape == (p,)
    assert protocol.schedule.outcome_lag == protocol.design.outcome_lag
    assert protocol.mean_bound == 10 * protocol.design.reward_sd
    assert protocol.probability is None


def test_the_deployed_values() -> None:
    protocol = load({"protocol": "miwaves"})
    assert protocol.prior.mean[:4].tolist() == [2.12, 0, 0, -0.69]
    assert protocol.prior.sd[[0, 3, 7, 8, 16, 23]].tolist() == [0.78, 0.98, 0.10, 0.27, 0.27, 0.10]
    assert (protocol.prior.sigma_u, protocol.prior.noise_variance) == (0.01, 0.85)
    assert (protocol.allocation.B, protocol.allocation.C) == (10 / 0.95, 5)
    assert (protocol.hyperparameters.nu0, protocol.hyperparameters.nu_s) == (30, 5)
    assert protocol.schedule.study_length == 60


@pytest.mark.parametrize("name", NAMES)
def test_the_complete_document_is_complete(name: str) -> None:
    whole = default_document(name)
    assert load(whole).document == whole
    assert json.loads(canonical(whole)) == whole
    assert digest(whole) == load(whole).digest == digest({"protocol": name})
    assert digest(whole) == hashlib.sha256(canonical(whole).encode()).hexdigest()


def test_equal_documents_have_equal_digests_and_others_do_not() -> None:
    one = {"protocol": "miwaves", "schedule": {"study_length": 90}, "allocation": {"C": 5}}
    other = {"allocation": {"C": 5.0}, "schedule": {"study_length": 90}, "protocol": "miwaves"}
    assert digest(one) == digest(other)
    assert digest(one) != digest({"protocol": "miwaves"})
    assert load(one).schedule.study_length == 90


WRONG = [
    ("unknown", 1),
    ("protocol", "waves"),
    ("protocol", None),
    ("algorithm", "bandit"),
    ("algorithm", 3),
    ("algorithm_parameters.probability", 0.5),
    ("prior.mean", [0.0] * 23),
    ("prior.mean", "zeros"),
    ("prior.mean.3", [0.0, 0.0, 0.0, "x", *[0.0] * 20]),
    ("prior.sd.5", [1.0] * 5 + [0.0] + [1.0] * 18),
    ("prior.sigma_u", -0.01),
    ("prior.sigma_u", 0),
    ("prior.noise_variance", 0),
    ("prior.noise_variance", float("nan")),
    ("prior.noise_variance", float("inf")),
    ("prior.noise_variance", True),
    ("prior.noise_variance", None),
    ("prior.noise", 0.85),
    ("prior", []),
    ("hyperparameters.rule", "em"),
    ("hyperparameters.nu0", 0),
    ("hyperparameters.nu_s", -1),
    ("hyperparameters.sigma_u0", 0),
    ("hyperparameters.subsample", 9),
    ("hyperparameters.subsample", 100.0),
    ("allocation.lower", 0.0),
    ("allocation.upper", 1.0),
    ("allocation.upper", 0.1),
    ("allocation.B", 0),
    ("allocation.C", -5),
    ("allocation.C", 10**400),
    ("gate.mean_bound", 0),
    ("gate.bound", 1),
    ("state.cannabis_use", "minutes"),
    ("state.alcohol", "auto"),
    ("schedule.study_length", 0),
    ("schedule.study_length", "60"),
    ("schedule.outcome_lag", 0),
    ("schedule.outcome_lag", True),
    ("refit.nightly_only", 1),
    ("refit.nightly_hour", 24),
    ("refit.weekly_day", 7),
    ("refit.min_interval_minutes", -1),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_is_wrong_is_named_by_its_key(key: str, value: Any) -> None:
    head = ".".join(part for part in key.split(".") if not part.isdigit())
    with pytest.raises(ProtocolError) as error:
        load(nested(head, value))
    assert error.value.key == key
    assert key in str(error.value)


def test_the_document_itself_must_be_an_object() -> None:
    documents: list[Any] = [None, [], "miwaves"]
    for wrong in documents:
        with pytest.raises(ProtocolError, match="document"):
            load(wrong)
    with pytest.raises(ProtocolError, match="protocol"):
        load({})


def test_a_fixed_probability_lies_within_the_limits() -> None:
    document = {"protocol": "miwaves", "algorithm": "fixed_probability"}
    assert load(document).probability == 0.5
    assert load({**document, "algorithm_parameters": {"probability": 0.25}}).probability == 0.25
    with pytest.raises(ProtocolError) as error:
        load({**document, "algorithm_parameters": {"probability": 0.1}})
    assert error.value.key == "algorithm_parameters.probability"


def test_fixed_hyperparameters_may_have_no_deviations() -> None:
    document = {"protocol": "miwaves", "prior": {"sigma_u": 0}, "hyperparameters": {"rule": "fixed"}}
    assert load(document).prior.sigma_u == 0


def test_null_stands_for_the_default_bound() -> None:
    assert load(nested("gate.mean_bound", None)).mean_bound == 10 * np.sqrt(1.25)
    assert load(nested("gate.mean_bound", 3)).mean_bound == 3.0


def test_what_is_loaded_cannot_be_changed_through_the_document() -> None:
    document: dict[str, Any] = {"protocol": "miwaves", "allocation": {"C": 4.0}}
    protocol = load(document)
    document["allocation"]["C"] = 5.0
    assert protocol.allocation.C == protocol.document["allocation"]["C"] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        protocol.prior.mean[0] = 0


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100)
@given(st.sampled_from(sorted(default_document("miwaves"))), anything)
def test_anything_else_loads_or_is_named(key: str, value: Any) -> None:
    document = {"protocol": "miwaves", key: value}
    try:
        whole = load(document).document
    except ProtocolError:
        with pytest.raises(ProtocolError) as error:
            load(document)
        assert error.value.key.split(".")[0] == key
    else:
        assert digest(whole) == digest(document)
