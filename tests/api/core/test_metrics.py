"""/metrics: what it counts over all processes, who may read it, and what docs/ops says of it."""

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.core import broker, metrics
from local.embedded import Embedded
from local.stack import Stack
from models.core import heartbeats
from models.core.session import transact
from models.trial import circuits
from tests.support.configured import configured
from tests.support.service import Service
from tests.support.study import Study
from tests.workers.trial.test_refit import play, run
from workers.oversight import watchdog
from workers.trial import refit

ROOT = Path(__file__).parents[3]
OPS = ROOT / "docs" / "ops"
TOKEN = "a-token-of-the-scraper"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[f"kairos_{name}", tuple(sorted(labels.items()))]


def of_study(found: Samples, name: str, study_id: int) -> dict[str, float]:
    """A metric of one study with one more label, by that."""
    own = {labels: value for (one, labels), value in found.items() if one == f"kairos_{name}"}
    return {
        text: value
        for labels, value in own.items()
        for label, text in labels
        if label != "study" and ("study", str(study_id)) in labels
    }


def read(service: Service) -> Samples:
    metrics.forget()
    answer = service.call("GET", "/metrics")
    assert answer.status_code == 200
    return samples(answer.text)


@pytest.fixture
def lived(only_study: Study) -> Study:
    """A study with decisions, windows, a policy, a circuit and an incident."""
    play(only_study, people=3, points=4)
    run(only_study)
    only_study.end("p0")
    transact(lambda session: session.add(circuits.Circuit(study_id=1, state="half_open", failures=3)))
    transact(lambda session: heartbeats.touch(session, heartbeats.BEAT, datetime.now(UTC)))
    watchdog.run()
    return only_study


def test_the_database_is_told_in_numbers(lived: Study) -> None:
    found = read(lived.service)
    assert of(found, "database_up") == of(found, "broker_up") == 1
    assert of(found, "jobs", study="1", state="done") == 1
    assert of(found, "jobs_due", kind="ingest") == 10
    assert 0 <= of(found, "jobs_due_oldest_seconds", kind="ingest") < 60
    assert of(found, "windows", study="1", state="ended") == 10
    assert of(found, "policy_rows", study="1") == 9
    assert 0 <= of(found, "policy_age_seconds", study="1") < 60
    assert of(found, "fit_seconds", study="1") > 0
    assert of(found, "refit_seconds", study="1", state="done") > 0
    assert of(found, "fit_log_evidence", study="1") < 0
    assert of(found, "decisions_day", study="1", level="F0") == 12
    assert of(found, "fallback_share", study="1") == 0
    assert of(found, "circuit_open", study="1") == 0.5
    assert of(found, "incident_open", study="1", kind="circuit_open", level="yellow") == 1
    assert 0 <= of(found, "heartbeat_age_seconds", part="beat") < 60
    assert of(found, "queue_messages", queue="refit") >= 0


def test_failed_windows_are_counted_by_code(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 1)
    study.tamper("UPDATE windows SET state = 'failed', code = 317 WHERE study_id = %s", study.study_id)
    found = read(study.service)
    assert of_study(found, "ingest_failures", study.study_id) == {"317": 1}


def test_ingests_that_wait_for_another_try_are_counted_by_code(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 5)
    jobs = study.rows("SELECT id FROM jobs WHERE study_id = %s", study.study_id)
    met = (("queued", 320), ("running", 320), ("queued", 321), ("queued", None), ("failed", 320))
    for job, (state, code) in zip(jobs, met, strict=True):
        study.tamper("UPDATE jobs SET state = %s, code = %s WHERE id = %s", state, code, job["id"])
    assert of_study(read(study.service), "ingest_retries", study.study_id) == {"320": 2, "321": 1}


GIVEN_UP = """
INSERT INTO notifications (number, channel, message, state, run_after, finished_at)
SELECT n, %s, '{}', %s, now(), now() - n * interval '1 hour' FROM generate_series(%s, %s) n
"""


def alert(name: str) -> str:
    """The expression of an alert."""
    rules = yaml.safe_load((OPS / "alerts.yml").read_text(encoding="utf-8"))
    (found,) = (rule["expr"] for group in rules["groups"] for rule in group["rules"] if rule["alert"] == name)
    return str(found)


def test_notifications_that_were_given_up_count_for_a_day(study: Study) -> None:
    assert not [name for name, _ in read(study.service) if name == "kairos_notifications_given_up_day"]
    for channel, state, first, last in (
        ("email", "failed", 1, 23),
        ("email", "failed", 25, 30),
        ("email", "sent", 1, 5),
        ("webhook", "failed", 25, 30),
    ):
        study.tamper(GIVEN_UP, channel, state, first, last)
    found = read(study.service)
    assert of(found, "notifications", channel="email", state="failed") == 29
    given_up = {key: value for key, value in found.items() if key[0] == "kairos_notifications_given_up_day"}
    assert list(given_up.values()) == [of(found, "notifications_given_up_day", channel="email")] == [23]
    assert "kairos_notifications_given_up_day" in alert("KairosNotTold")


def test_a_refit_that_is_refused_has_its_time_too(new_study: Callable[..., Study]) -> None:
    study = new_study("gate.mean_bound=0.001")
    study.enrol("ann")
    study.live("ann", 3)
    assert of_study(read(study.service), "refit_seconds", study.study_id) == {}
    asked = study.call("POST", "/update_parameters")
    refit.run(asked.get_json()["job_id"])
    (seconds,) = (found := of_study(read(study.service), "refit_seconds", study.study_id)).values()
    assert list(found) == ["failed"]
    assert 0 < seconds < 60
    study.tamper("UPDATE jobs SET state = 'done', result = '{\"continued_by\": 1}' WHERE kind = 'refit'")
    assert of_study(read(study.service), "refit_seconds", study.study_id) == {}


def test_requests_are_counted_by_route_and_status(only_study: Study) -> None:
    def counts() -> Samples:
        return {key: value for key, value in read(only_study.service).items() if key[0].endswith("_count")}

    before = counts()
    only_study.call("GET", "/jobs/123456")
    only_study.service.call("GET", "/nowhere/ann")
    after = counts()
    for route, status in (("/jobs/<int:job_id>", "404"), ("none", "404")):
        key = "kairos_request_seconds_count", (("route", route), ("status", status))
        assert after[key] == before.get(key, 0) + 1
    assert not any("ann" in value for _, labels in after for _, value in labels)


def test_without_a_database_the_requests_are_still_told(embedded: Embedded) -> None:
    with configured(embedded, "postgresql://nobody@127.0.0.1:1/none") as service:
        found = read(service)
    assert of(found, "database_up") == 0
    assert ("kairos_jobs", ()) not in found


def test_without_a_broker_the_database_is_still_told(only_study: Study) -> None:
    broker.producer().conf.update(dict.fromkeys(("broker_url", "broker_read_url"), "redis://127.0.0.1:1/0"))
    found = read(only_study.service)
    assert (of(found, "database_up"), of(found, "broker_up")) == (1, 0)


PRODUCTION = {
    "KAIROS_MODE": "production",
    "KAIROS_REGISTRATION": "closed",
    "KAIROS_TLS_TERMINATED": "1",
}


@pytest.mark.parametrize(
    ("settings", "header", "status"),
    [
        ({}, None, 200),
        ({"KAIROS_API_BIND": "0.0.0.0:8000"}, None, 404),
        ({"KAIROS_PROXY_HOPS": "1"}, None, 404),
        ({"KAIROS_METRICS_TOKEN": TOKEN}, None, 401),
        ({"KAIROS_METRICS_TOKEN": TOKEN}, "Bearer wrong", 401),
        ({"KAIROS_METRICS_TOKEN": TOKEN}, f"Basic {TOKEN}", 401),
        ({"KAIROS_METRICS_TOKEN": TOKEN}, "Bearer \u00e9", 401),
        ({"KAIROS_METRICS_TOKEN": TOKEN, "KAIROS_API_BIND": "0.0.0.0:8000"}, f"Bearer {TOKEN}", 200),
    ],
)
def test_who_may_read_them(
    embedded: Embedded, fresh_database: str, settings: dict[str, str], header: str | None, status: int
) -> None:
    with configured(embedded, fresh_database, **PRODUCTION | settings) as service:
        headers = {"Authorization": header} if header else {}
        answer = service.call("GET", "/metrics", **headers)
    assert answer.status_code == status


def total(stack: Stack) -> float:
    text = requests.get(f"{stack.api_url}/metrics", timeout=60).text
    return of(samples(text), "request_seconds_count", route="/version", status="200")


def ask(stack: Stack, times: int) -> None:
    for _ in range(times):  # each by a new connection, which any of the processes may take
        requests.get(f"{stack.api_url}/version", timeout=60)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_totals_of_all_processes_only_grow(stack: Stack) -> None:
    ask(stack, 40)
    before = total(stack)
    assert before >= 40
    ask(stack, 60)
    assert total(stack) == before + 60
    seen = [total(stack) for _ in range(10)]  # whichever process answers
    assert set(seen) == {before + 60}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_dead_childs_counts_stay(stack: Stack) -> None:
    ask(stack, 30)
    before = total(stack)
    (victim, *_), known = children(stack.pids["api"]), set(children(stack.pids["api"]))
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while set(children(stack.pids["api"])) == known and time.monotonic() < deadline:
        time.sleep(0.05)
    ask(stack, 20)
    assert total(stack) == before + 20
