"""Schemathesis makes calls of every operation from the OpenAPI document and holds the answers against it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from api.app import DOMAINS
from api.core import health, openapi
from local.embedded import Embedded
from tests.support.configured import configured, database
from tests.support.service import Service
from tests.support.study import NOT_FINISHED, REGISTRATION, Study, begin

OPERATIONS = [
    (method.upper(), path)
    for path, methods in openapi.document(DOMAINS)["paths"].items()
    for method in methods
]
PROTOCOLS = {"/decision_points": "oralytics"}  # which no study of the other one takes
EXAMPLES = {"admin": 12, "client": 4, "researcher": 4}
HELD = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def held(method: str, path: str) -> list[Any]:
    """The checks of an operation's answers."""
    found = list(HELD)
    if path != "/healthcheck":  # whose 503 is an answer
        found.append(not_a_server_error)
    if method == "POST":  # of a query parameter that is sent as nothing it would say that it was accepted
        found.append(checks.negative_data_rejection)
    return found


class Known:
    """A study with rows that calls may hit, and its application's document."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.schema = schemathesis.openapi.from_wsgi("/openapi.json", study.service.app)
        self.ids = [study.enrol(f"known {number}") for number in range(3)]
        self.decide("known 0")
        study.end("known 0")
        self.decide("known 1")
        self.first = study.rows("SELECT min(id) AS id FROM windows WHERE study_id = %s", study.study_id)[0][
            "id"
        ]

    def decide(self, user_id: str) -> None:
        """By the call that the study's protocol takes."""
        is_other = self.study.call("GET", "/study").get_json()["protocol"] in PROTOCOLS.values()
        path, answers = ("/decision_points", {}) if is_other else ("/actions", NOT_FINISHED)
        assert self.study.call("POST", path, {"user_id": user_id, **answers}).status_code == 200


@pytest.fixture(scope="module")
def place(embedded: Embedded, migrated: str) -> Iterator[Service]:
    """The service, which looks at its own health only once."""
    with (
        database(embedded, migrated) as url,
        configured(embedded, url) as service,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(health, "KEPT_SECONDS", 3600)
        yield service


@pytest.fixture
def known(place: Service, path: str) -> Known:
    """A study of a protocol that takes the operation."""
    return Known(begin(place, f"protocol={PROTOCOLS.get(path, 'miwaves')}"))


def at_home(case: Any, known: Known) -> Any:
    """Let a made call meet a row that there is."""
    if isinstance(case.body, dict):
        if "consent_start_date" in case.body:
            case.body |= REGISTRATION
        elif "user_id" in case.body:
            case.body["user_id"] = "known 1"
            if "answers" in case.body:
                case.body["answers"] = {}  # the protocol has none here
        elif "api_pass" in case.body:
            case.body["study"] = known.study.name
    for name in case.path_parameters:
        case.path_parameters[name] = {"policy_id": 0, "participant_id": known.ids[2]}.get(name, known.first)
    return case


@pytest.mark.parametrize("role", EXAMPLES)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_documented(known: Known, method: str, path: str, role: str) -> None:
    operation = known.schema[path][method]
    asks_token = operation.definition.raw["security"] != []
    headers = {"Authorization": f"Bearer {known.study.tokens[role]}"} if asks_token else {}
    valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    invalid = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    answered = set[int]()
    made = st.one_of(valid, valid.map(lambda case: at_home(case, known)), invalid)

    @settings(
        max_examples=EXAMPLES[role],
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=made)
    def call(case: Any) -> None:
        answered.add(case.call_and_validate(headers=headers, checks=held(method, path)).status_code)

    call()
    assert path not in PROTOCOLS or role != "admin" or 200 in answered
    assert path != "/auth/logout" or 200 in answered
