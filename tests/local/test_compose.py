"""docker-compose.yml, the supervisor's stack and celeryconfig.py describe the same service."""

from __future__ import annotations

import base64
import re
import runpy
import secrets
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import yaml
from celery import Celery
from psycopg2 import sql
from psycopg2.errors import InsufficientPrivilege

from local.postgres import NO_STATEMENTS_IN_LOG
from local.process import Process
from local.stack import API, MIGRATE, WORKER, beat, environment, flower, python
from local.state import CLONE, State
from settings import Settings

if TYPE_CHECKING:
    from local.embedded import Embedded

COMPOSE = yaml.safe_load((CLONE / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "roles", "api", "worker", "beat", "flower")
SECRETS = {
    "POSTGRES_PASSWORD",
    "KAIROS_APP_PASSWORD",
    "BROKER_PASSWORD",
    "KAIROS_SIGNING_KEYS",
    "KAIROS_SECRETS_KEYS",
    "FLOWER_BASIC_AUTH",
}


@pytest.fixture
def celery_settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings in celeryconfig.py."""
    monkeypatch.setenv("BROKER_URL", "redis://x")
    return runpy.run_path(str(CLONE / "celeryconfig.py"))


def setting_names() -> set[str]:
    """Return every name that settings.py or celeryconfig.py reads from the environment."""
    fields = Settings.model_fields.items()
    names = {str(field.validation_alias or f"KAIROS_{name.upper()}") for name, field in fields}
    return names | set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', (CLONE / "celeryconfig.py").read_text()))


def test_the_services_are_the_ones_of_the_stack() -> None:
    assert set(SERVICES) == {"db", "broker", *OURS}


def test_the_worker_gives_way_to_all_others() -> None:
    shares = {name: service.get("cpu_shares", 1024) for name, service in SERVICES.items()}
    assert [name for name, share in shares.items() if share < 1024] == ["worker"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("migrate", MIGRATE),
        ("roles", ("flask", "--app", "api.app", "database", "grant", "--app", "kairos_app")),
        ("api", API),
        ("worker", WORKER),
        ("beat", beat("/var/lib/kairos/beat")),
        ("flower", flower("0.0.0.0", 5555, "/var/lib/kairos/flower.db")),
    ],
)
def test_the_commands_are_the_same(name: str, command: tuple[str, ...]) -> None:
    assert tuple(SERVICES[name]["command"]) == command


def test_every_queue_has_a_consumer_and_every_consumer_a_queue(celery_settings: dict[str, Any]) -> None:
    routed = {route["queue"] for route in celery_settings["task_routes"].values()}
    consumed = WORKER[WORKER.index("--queues") + 1].split(",")
    assert set(consumed) == routed | {celery_settings["task_default_queue"]}


def test_the_queues_are_those_that_celery_makes_of_the_routes(celery_settings: dict[str, Any]) -> None:
    """The declared queues are those that Celery would make by itself, one exchange and key each.

    If two queues had an exchange or a key in common, a message to one of them would lie in both.
    """
    declaring, automatic = (Celery(broker="redis://x", set_as_current=False) for _ in range(2))
    declaring.conf.task_queues = celery_settings["task_queues"]
    names = {route["queue"] for route in celery_settings["task_routes"].values()}
    assert {queue.name for queue in celery_settings["task_queues"]} == names
    for name in names:
        declared, expected = (app.amqp.queues[name].as_dict(recurse=True) for app in (declaring, automatic))
        assert declared == expected
        routed = declaring.amqp.router.route({"queue": name}, "kairos.x")["queue"]
        assert routed.as_dict(recurse=True) == expected


def test_every_scheduled_task_is_routed(celery_settings: dict[str, Any]) -> None:
    scheduled = {entry["task"] for entry in celery_settings["beat_schedule"].values()}
    assert scheduled <= set(celery_settings["task_routes"])


@pytest.mark.parametrize("name", OURS)
def test_every_setting_in_compose_is_one_that_the_service_reads(name: str) -> None:
    named = set(SERVICES[name]["environment"]) - {"FLOWER_BASIC_AUTH", "KAIROS_APP_PASSWORD"}
    assert named <= setting_names()


def test_every_setting_of_the_supervisor_is_one_that_the_service_reads(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {})
    state = State(tmp_path)
    env = environment(state, "postgresql+psycopg2://x/y", "redis://x", 8000)
    assert set(env) - {"OPENBLAS_NUM_THREADS", "PYTHONUNBUFFERED"} <= setting_names()
    monkeypatch.setattr("os.environ", env)
    assert Settings().mode == "embedded"
    dockerfile = (CLONE / "Dockerfile").read_text()
    assert all(f"{name}={env[name]}" in dockerfile for name in ("OPENBLAS_NUM_THREADS", "PYTHONUNBUFFERED"))


def test_compose_gives_the_service_settings_it_accepts_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SERVICES["api"]["environment"]
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    filled = {name: re.sub(r"\$\{\w+:\?[^}]*\}", key, value) for name, value in env.items()}
    filled = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in filled.items()}
    monkeypatch.setattr("os.environ", filled)
    accepted = Settings()
    assert (accepted.mode, accepted.registration, accepted.tls_terminated) == ("production", "closed", True)


def test_only_what_prepares_the_database_connects_as_its_owner() -> None:
    secret = {"kairos": "POSTGRES_PASSWORD", "kairos_app": "KAIROS_APP_PASSWORD"}
    for name in OURS:
        role = "kairos" if name in {"migrate", "roles"} else "kairos_app"
        address = f"postgresql+psycopg2://{role}:${{{secret[role]}:?is not set}}@db:5432/kairos"
        assert SERVICES[name]["environment"]["DATABASE_URL"] == address
        assert ("POSTGRES_PASSWORD" in str(SERVICES[name])) == (role == "kairos")
    completed = {"condition": "service_completed_successfully"}
    assert SERVICES["roles"]["depends_on"] == {"migrate": completed}
    assert all(SERVICES[name]["depends_on"]["roles"] == completed for name in OURS[2:])


def test_the_commands_of_compose_make_the_role_of_the_service_and_may_be_repeated(embedded: Embedded) -> None:
    name, role = f"compose_{secrets.token_hex(4)}", SERVICES["roles"]["command"][-1]
    embedded.postgres.create_database(name)
    env = environment(embedded.state, embedded.database_url(name), embedded.broker_url(), 8000)
    try:
        for password in ("the first 'password'", "another one"):
            env_with_password = {**env, "KAIROS_APP_PASSWORD": password}
            for service in ("migrate", "roles"):
                command = python(tuple(SERVICES[service]["command"]))
                embedded.supervisor.run(Process(service, command, env_with_password, folder=CLONE))
        place = {"host": str(embedded.postgres.sockets), "dbname": name, "user": role}
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(**place, password="the first 'password'")
        with closing(psycopg2.connect(**place, password=password)) as link, link.cursor() as cursor:
            cursor.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchone() == (False,)
            with pytest.raises(InsufficientPrivilege):
                cursor.execute("DELETE FROM decisions")
    finally:
        embedded.postgres.drop_database(name)
        embedded.postgres.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def test_no_secret_has_a_default_and_none_is_on_a_command_line() -> None:
    text = (CLONE / "docker-compose.yml").read_text()
    for name in SECRETS:
        assert set(re.findall(rf"\$\{{{name}(\W[^}}]*)\}}", text)) == {":?is not set"}
    for service in SERVICES.values():
        assert not re.search(r"(?<!\$)\$\{|basic[-_]auth", str(service.get("command")))


def test_what_is_published_is_published_to_this_host_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_the_servers_are_pinned_to_a_major_version_and_keep_their_data() -> None:
    for name in ("db", "broker"):
        assert re.search(r":\d+$", SERVICES[name]["image"])
        assert SERVICES[name]["volumes"][0].split(":")[0] in COMPOSE["volumes"]
    broker = SERVICES["broker"]["command"][-1]
    assert "--appendonly yes" in broker
    assert "requirepass" in broker


def test_the_log_of_the_database_quotes_no_statement() -> None:
    assert tuple(SERVICES["db"]["command"]) == ("postgres", *NO_STATEMENTS_IN_LOG)


def test_the_image_holds_every_file_that_the_service_imports() -> None:
    copied = set(re.findall(r"^COPY (.+) \S+$", (CLONE / "Dockerfile").read_text(), re.MULTILINE))
    words = {word for line in copied for word in line.split()}
    folders = {path.parent.name for path in CLONE.glob("*/__init__.py")} | {"migrations"}
    files = {path.name for path in CLONE.glob("*.py")} | {"alembic.ini"}
    assert words == (folders | files | {"requirements.lock"}) - {"local", "rehearsal", "tests", "benchmarks"}
    ignored = (CLONE / ".dockerignore").read_text().split()
    assert words == {line[1:] for line in ignored if line.startswith("!")}
