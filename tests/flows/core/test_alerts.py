"""The files for operators agree with the metrics: each expression, each alert and what docs/ops explains."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml

from api.app import DOMAINS
from local.stack import Stack
from tests.api.core.test_metrics import OPS, ROOT, Samples, alert, of, read
from tests.support.study import Study


@pytest.fixture(scope="module")
def exported(stack: Stack) -> set[str]:
    """Every name that /metrics may have: of the families, also of those without a sample just now."""
    text = requests.get(f"{stack.api_url}/metrics", timeout=60).text
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
    parts = {"histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return {name + part for name, kind in families for part in parts[kind]}


def expressions(node: Any) -> Iterator[str]:
    """Every PromQL expression of a dashboard or a file of rules."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "expr")
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from expressions(one)


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
def test_every_metric_of_the_file_is_exported(exported: set[str], name: str) -> None:
    text = (OPS / name).read_text(encoding="utf-8")
    found = list(expressions(json.loads(text) if name.endswith("json") else yaml.safe_load(text)))
    named = {metric for expression in found for metric in re.findall(r"\bkairos_\w+", expression)}
    assert len(named) >= 8
    assert named <= exported


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
def test_what_watches_decisions_watches_those_of_every_protocol(name: str) -> None:
    text = (OPS / name).read_text(encoding="utf-8")
    found = list(expressions(json.loads(text) if name.endswith("json") else yaml.safe_load(text)))
    routes = {route for expression in found for route in re.findall(r"route=~?\"([^\"]*)\"", expression)}
    assert routes == {"/actions|/decision_points"}
    paths = {endpoint.path for domain in DOMAINS for endpoint in domain.endpoints}
    assert paths >= set("".join(routes).split("|"))


def selected(found: Samples, name: str, matchers: str) -> Samples:
    """The samples that an instant selector of PromQL takes."""
    asked = re.findall(r"(\w+)(=~|!~|!=|=)\"([^\"]*)\"", matchers)

    def fits(labels: dict[str, str], label: str, operator: str, text: str) -> bool:
        is_alike = bool(re.fullmatch(text, labels[label])) if "~" in operator else labels[label] == text
        return is_alike != operator.startswith("!")

    return {
        key: value
        for key, value in found.items()
        if key[0] == name and all(fits(dict(key[1]), *one) for one in asked)
    }


def test_that_a_part_is_silent_is_no_failed_request(only_study: Study) -> None:
    assert only_study.service.call("GET", "/healthcheck").status_code == 503  # there is no worker
    only_study.service.call("GET", "/version")
    name = "kairos_request_seconds_count"
    away = (name, (("route", "/actions"), ("status", "503")))
    found = {**read(only_study.service), away: 1.0}
    assert of(found, "request_seconds_count", route="/healthcheck", status="503") >= 1
    selectors = re.findall(name + r"\{([^}]*)\}", alert("KairosErrors"))
    failed, of_all = (selected(found, name, one) for one in selectors)
    assert away in failed
    assert {away, (name, (("route", "/version"), ("status", "200")))} <= set(of_all)
    assert not [labels for _, labels in {**failed, **of_all} if ("route", "/healthcheck") in labels]


def test_every_metric_is_explained_to_operators(exported: set[str]) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    bases = {re.sub(r"(?<=request_seconds)_(bucket|count|sum)$", "", name) for name in exported}
    assert [name for name in sorted(bases) if f"`{name}`" not in page] == []


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((OPS / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 8
    for rule in alerts:
        assert rule["labels"]["severity"] in {"red", "yellow"}
        assert rule["annotations"].keys() >= {"summary", "description"}
