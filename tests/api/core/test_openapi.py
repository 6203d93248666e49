"""The OpenAPI document: valid, whole, and true for the calls that it shows."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import jsonschema_rs
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import DOMAINS
from api.core import examples as core_examples
from api.core import openapi
from api.core.endpoint import Endpoint
from api.trial import examples as trial_examples
from tests.support.service import Service
from tests.support.study import Study

DOCUMENT = openapi.document(DOMAINS)
EXAMPLES = {**core_examples.EXAMPLES, **trial_examples.EXAMPLES}
ENDPOINTS = {endpoint.view.__name__: endpoint for domain in DOMAINS for endpoint in domain.endpoints}
CORE = {
    *("register_client", "login", "logout", "register", "decide", "end_decision_window"),
    *("update_parameters", "update_hyperparameters"),
}


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names) == len(ENDPOINTS)


def references(part: Any) -> Iterator[str]:
    """Every `$ref` of a part of the document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 50
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_operation_says_who_may_and_what_can_go_wrong() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, method, operation in operations():
        statuses = set(operation["responses"])
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        assert bool(operation["security"]) == ("401" in statuses and path != "/auth/login"), path
        assert "x-roles" not in operation or {"401", "403"} <= statuses, path
        assert "503" in statuses, path
        assert method == "get" or "413" in statuses, path
        if "requestBody" in operation:
            assert {"400", "415", "422"} <= statuses, path
        if "{" in path:
            assert "404" in statuses, path
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"]
            assert ("Retry-After" in response["headers"]) == (status in {"429", "503"})


def test_logout_asks_for_the_token_that_it_revokes() -> None:
    logout = _operation("logout")
    told = logout["responses"]["401"]["content"]["application/json"]["examples"]
    assert logout["security"] == [{"bearer": []}]
    assert set(told) == {"LOGOUT_MISSING", "TOKEN_MALFORMED", "LOGOUT_INVALID"}


def test_the_core_operations_have_examples() -> None:
    assert set(EXAMPLES) >= CORE
    for name in EXAMPLES:
        assert (EXAMPLES[name].body is None) == (ENDPOINTS[name].body is None), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_of_its_schema(name: str) -> None:
    content = _operation(name)["responses"][str(ENDPOINTS[name].status)]["content"]["application/json"]
    _validator(content["schema"]).validate(content["example"])
    asked = _operation(name).get("requestBody")
    if asked is not None:
        content = asked["content"]["application/json"]
        _validator(content["schema"]).validate(content["example"])


def _operation(name: str) -> dict[str, Any]:
    return next(operation for _, _, operation in operations() if operation["operationId"] == name)


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_the_calls_of_a_day_go_as_the_examples_say(study: Study) -> None:
    study.tamper("UPDATE studies SET timezone = 'America/New_York' WHERE id = %s", study.study_id)
    day = {"rl_start_date": "2020-01-01", "rl_end_date": "2099-01-01"}
    dates = {**day, "consent_start_date": "2020-01-01", "consent_end_date": "2099-01-01"}
    for name, changes in (("register", dates), ("decide", {}), ("end_decision_window", {})):
        answer = _send(study, ENDPOINTS[name], {**(EXAMPLES[name].body or {}), **changes})
        assert answer.status_code == ENDPOINTS[name].status, answer.text
        assert _shape(answer.get_json()) == _shape(EXAMPLES[name].reply)
    for name in ("update_parameters", "update_hyperparameters", "logout"):
        answer = _send(study, ENDPOINTS[name], None)
        assert answer.status_code == ENDPOINTS[name].status
        assert _shape(answer.get_json()) == _shape(EXAMPLES[name].reply)


def _send(study: Study, endpoint: Endpoint, body: dict[str, Any] | None) -> TestResponse:
    return study.call(endpoint.method, endpoint.path, body)


def _shape(body: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in body.items()}


def test_the_example_draw_is_the_documented_one() -> None:
    shown = EXAMPLES["decide"].reply
    assert shown["action"] == (1 if shown["seed"] / 2**53 < shown["act_prob"] else 0)


@pytest.fixture
def browser(shared_service: Service) -> FlaskClient:
    return shared_service.app.test_client()


def test_the_page_and_all_it_needs_come_from_here(browser: FlaskClient) -> None:
    page = browser.get("/docs")
    assert page.mimetype == "text/html"
    for name in ("docs/css/swagger-ui.css", "docs/js/swagger-ui-bundle.js", "docs/start.js"):
        assert f'"{name}"' in page.text
        with browser.get(f"/{name}") as found:
            assert found.status_code == 200
            assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert "http" not in page.text
    assert browser.get("/openapi.json").get_json() == DOCUMENT


def test_the_page_with_a_slash_is_the_page(browser: FlaskClient) -> None:
    moved = browser.get("/docs/")
    assert moved.status_code == 308
    for prefix in ("", "/behind/a/proxy"):
        assert urljoin(f"https://host{prefix}/docs/", moved.location) == f"https://host{prefix}/docs"


def test_the_page_may_load_nothing_from_elsewhere(browser: FlaskClient) -> None:
    told = browser.get("/docs").headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in told.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert "http" not in told


@pytest.mark.parametrize(
    "path",
    ["/docs/../settings.py", "/docs/%2e%2e/index.html", "/docs/none.js", "/docs//etc/passwd", "//docs"],
)
def test_nothing_else_is_served(browser: FlaskClient, path: str) -> None:
    answer = browser.get(path)
    assert (answer.status_code, answer.get_json()["error_code"]) == (404, 901)
