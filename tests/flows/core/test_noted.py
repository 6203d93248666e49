"""Every operation that changes something, with the act that it leaves in the audit, or why it leaves none.

A new route that is no GET, or a new command, fails here until it stands in one of the tables.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from api.app import DOMAINS
from tests.flows.core.test_authorisation import REQUESTS, Request, rows_of, send
from tests.support.study import NOBODY, Study

ROUTES = {
    "POST /auth/register": "create_account",
    "POST /windows/<int:window_id>/retry": "retry_window",
    "POST /participants/<int:participant_id>/withdraw": "withdraw",
    "POST /study/pause": "pause",
    "POST /study/resume": "resume",
    "POST /study/freeze_learning": "freeze_learning",
    "POST /study/resume_learning": "resume_learning",
    "POST /participants/<int:participant_id>/remove_from_learning": "remove_from_learning",
    "POST /policies/<int:policy_id>/activate": "activate",
    "POST /study/close": "close",
    "PUT /study/protocol": "protocol_version",
    "POST /proposals/<int:proposal_id>/approve": "approve",
    "POST /proposals/<int:proposal_id>/reject": "reject",
    "POST /incidents/<int:incident_id>/acknowledge": "acknowledge_incident",
    "POST /exports": "export",
}
ROUTES_WITHOUT = {
    "POST /auth/login": "changes nothing that is kept; the log has it",
    "POST /auth/logout": "ends one token of its own bearer; the log has it",
    "POST /register": "the participant is a row with its time, and its zones are append-only rows",
    "POST /decision_points": "as /actions",
    "POST /actions": "the decision is an append-only row; a later body that differs is noted as `correct`",
    "POST /end_decision_window": "the window is a row with its time",
    "POST /update_parameters": "the job is a row with its time, and the policy that comes of it another",
    "POST /update_hyperparameters": "the same",
    "PUT /storage/<path:object_key>": "whoever makes the link writes a row about the object",
}
ADMIN = ("--account", "admin@{study}", "--reason", "a test")
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "study create": ("create_study", ("{new}", "--ema-url", NOBODY)),
    "study pause": ("pause", ("{study}", *ADMIN)),
    "study resume": ("resume", ("{study}", *ADMIN)),
    "study freeze-learning": ("freeze_learning", ("{study}", *ADMIN)),
    "study resume-learning": ("resume_learning", ("{study}", *ADMIN)),
    "study rebuild-statistics": ("rebuild_statistics", ("{study}", *ADMIN)),
    "study withdraw": ("withdraw", ("{study}", "{participant}", *ADMIN)),
    "study remove-from-learning": ("remove_from_learning", ("{study}", "{participant}", *ADMIN)),
    "study activate-policy": ("activate", ("{study}", "{policy}", *ADMIN)),
    "study close": ("close", ("{study}", *ADMIN)),
    "protocol change": ("protocol_version", ("{study}", "{file}", *ADMIN)),
    "proposal approve": ("approve", ("{study}", "{proposal}", *ADMIN)),
    "proposal reject": ("reject", ("{study}", "{proposal}", *ADMIN)),
    "client create": ("create_account", ("{new}", "--study", "{study}", "--role", "client")),
    "client disable": ("change_account", ("client@{study}",)),
    "client enable": ("change_account", ("disabled@{study}",)),
    "client role": ("change_account", ("client@{study}", "researcher")),
    "client password": ("reset_password", ("client@{study}",)),
    "keys rotate": ("rotate_keys", ()),
    "database grant": ("grant", ("--reader", "{role}")),
    "export": ("export at the command line", ("{study}", "{folder}", "--account", "admin@{study}")),
}
COMMANDS_WITHOUT = {
    "study list": "reads",
    "study registration-token": "computes; the accounts that are made with it are noted",
    "client list": "reads",
    "proposal list": "reads",
    "audit head": "reads",
    "audit verify": "reads",
    "protocol export": "reads",
    "protocol check": "reads a file",
    "keys new": "prints new keys; their use is noted by tests/workers/oversight/test_configuration.py",
    "backup": "reads, as whoever owns the database",
    "dump": "the same, without secrets",
    "restore": "brings back the chains as they were; heads that were published later tell of it",
}
numbers = itertools.count(1)


def commands(app: Flask) -> set[str]:
    """Every command of the service; those of the web server are Flask's."""
    found = set()
    for name, command in app.cli.commands.items():
        subs = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {sub}" for sub in subs} or {name}
    return found - {"run", "shell", "routes"}


def last_seq(study: Study) -> int:
    return int(study.rows("SELECT coalesce(max(id), 0) AS last FROM audit")[0]["last"])


def acts_since(study: Study, seq: int) -> list[dict[str, Any]]:
    return study.rows("SELECT study_id, act, role, client_id FROM audit WHERE id > %s ORDER BY id", seq)


def test_every_route_and_command_is_accounted_for(study: Study) -> None:
    mutating = {
        f"{endpoint.method} {endpoint.path}"
        for domain in DOMAINS
        for endpoint in domain.endpoints
        if endpoint.method != "GET"
    }
    assert mutating == ROUTES.keys() | ROUTES_WITHOUT.keys()
    assert commands(study.service.app) == COMMANDS.keys() | COMMANDS_WITHOUT.keys()
    assert not ROUTES.keys() & ROUTES_WITHOUT.keys()
    assert not COMMANDS.keys() & COMMANDS_WITHOUT.keys()


@pytest.mark.parametrize("operation", ROUTES)
def test_a_route_leaves_its_act(study: Study, operation: str) -> None:
    method, path = operation.split()
    rows = rows_of(study)
    asked = REQUESTS[path](rows) if path in REQUESTS else Request()
    if path == "/auth/register":
        study.tamper("DELETE FROM clients WHERE study_id = %s AND role = 'client'", study.study_id)
        account = {"api_user": f"new {next(numbers)}", "api_pass": "a password"}
        asked = Request(body={**account, "study": study.name})
    before = last_seq(study)
    status, told = send(study, method, path, None if path == "/auth/register" else "admin", asked)
    assert status in {200, 201, 202}, told
    found = acts_since(study, before)
    assert ROUTES[operation] in {row["act"] for row in found}
    assert {row["study_id"] for row in found} == {study.study_id}
    assert None not in {row["client_id"] for row in found}


@pytest.fixture
def role(study: Study) -> Iterator[str]:
    """A database role of the test's own."""
    name = f"noted_{next(numbers)}"
    study.tamper(f"CREATE ROLE {name}")
    yield name
    study.tamper(f"DROP OWNED BY {name}")
    study.tamper(f"DROP ROLE {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_leaves_its_act(study: Study, role: str, tmp_path: Path, name: str) -> None:
    act, words = COMMANDS[name]
    rows = rows_of(study)
    made = f"disabled@{study.name}"
    study.service.command("client", "create", made, "--study", study.name, "--role", "client")
    study.service.command("client", "disable", made)
    file = tmp_path / "next.json"
    file.write_text(json.dumps({"protocol": "miwaves", "refit": {"nightly_hour": 5}}))
    known = {
        "study": study.name,
        "new": f"new {next(numbers)}",
        "participant": rows.participant_id,
        "policy": rows.policy_id,
        "proposal": rows.proposal_id,
        "file": file,
        "folder": tmp_path / "export",
        "role": role,
    }
    before = last_seq(study)
    study.service.command(*name.split(), *(word.format(**known) for word in words))
    found = acts_since(study, before)
    assert act in {row["act"] for row in found}
    assert {row["role"] for row in found} == {"operator"}


def test_what_is_done_to_the_deployment_stands_in_every_chain(
    new_study: Callable[..., Study], role: str
) -> None:
    one, two = new_study(), new_study()
    before = last_seq(one)
    one.service.command("database", "grant", "--reader", role)
    one.service.command("keys", "rotate")
    for study in (one, two):
        mine = [row["act"] for row in acts_since(one, before) if row["study_id"] == study.study_id]
        assert mine == ["grant", "rotate_keys"]


def test_only_the_first_acknowledgement_is_noted(study: Study) -> None:
    number = rows_of(study).incident_id
    before = last_seq(study)
    for _ in range(2):
        assert study.call("POST", f"/incidents/{number}/acknowledge", role="admin").status_code == 200
    assert [row["act"] for row in acts_since(study, before)] == ["acknowledge_incident"]
