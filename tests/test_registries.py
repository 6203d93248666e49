"""What must agree because two places name it: routes and roles, tasks and queues, settings and the README."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import models
from api.app import DOMAINS
from local.stack import WORKER
from models.core.base import Base
from models.core.declarations import Export, meaning
from models.oversight.incidents import Kind
from settings import Settings
from tests.support.service import Service
from workers.core.kinds import KINDS

ROOT = Path(__file__).parent.parent
PUBLIC = {
    "/auth/register",
    "/auth/login",
    "/auth/logout",  # reads the token itself: its error codes are its own
    "/running",
    "/version",
    "/healthcheck",
    "/storage/<path:object_key>",  # the signature of the link is the right to it
}
DOCUMENTATION = {"/openapi.json", "/docs", "/docs/start.js", "/docs/<path:name>"}
OPERATORS = {"/metrics"}  # with a rule of its own: tests/api/core/test_metrics.py
SETTING = re.compile(r"(KAIROS|REHEARSAL)_[A-Z_]+|DATABASE_URL|BROKER_URL|PG_BIN|FLOWER_BASIC_AUTH")


def test_every_route_has_an_auth_rule(service: Service) -> None:
    known = {
        (endpoint.method, endpoint.path): endpoint for domain in DOMAINS for endpoint in domain.endpoints
    }
    for rule in service.app.url_map.iter_rules():
        if rule.rule in DOCUMENTATION | OPERATORS:
            continue
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert known[method, rule.rule].roles or rule.rule in PUBLIC, rule


def test_every_task_is_registered_routed_and_consumed() -> None:
    script = (
        "import json; from workers.app import app; app.loader.import_default_modules();"
        "print(json.dumps(list(app.tasks)))"
    )
    environment = {**os.environ, "BROKER_URL": "redis://unused"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    registered = {name for name in json.loads(found.stdout) if name.startswith("kairos.")}
    routes, scheduled = _celery_names()
    assert registered == set(routes)
    assert {f"kairos.{kind}" for kind in KINDS} <= registered
    assert KINDS
    assert scheduled <= registered
    assert set(routes.values()) == set(WORKER[WORKER.index("--queues") + 1].split(","))


def _celery_names() -> tuple[dict[str, str], set[str]]:
    script = (
        "import json, celeryconfig as c; print(json.dumps([{k: v['queue'] for k, v in c.task_routes.items()},"
        "[s['task'] for s in c.beat_schedule.values()]]))"
    )
    environment = {**os.environ, "BROKER_URL": "redis://unused"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    routes, scheduled = json.loads(found.stdout)
    return routes, set(scheduled)


def test_every_setting_is_in_the_readmes_table_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([A-Z][A-Z_0-9]+)`", readme, flags=re.MULTILINE))
    declared = {
        str(field.validation_alias or f"KAIROS_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    assert told == declared | _named_in_the_code()


def _named_in_the_code() -> set[str]:
    """Every string of the programs that is the name of a setting."""
    folders = ("api", "workers", "models", "local", "rehearsal")
    files = [
        ROOT / "celeryconfig.py",
        *(path for folder in folders for path in (ROOT / folder).rglob("*.py")),
    ]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {name for name in strings if SETTING.fullmatch(name)}


def test_every_kind_of_incident_is_explained_and_provoked() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition("## Incidents")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(Kind)
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    provoked = re.findall(r"mark\.provokes\(Kind\.(\w+)\)", "".join(tests))
    assert set(provoked) == set(Kind.__members__)


def test_models_equal_the_migrations(fresh_database: str) -> None:
    with create_engine(fresh_database).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, models.metadata) == []


def test_migrations_go_down_and_up_again(fresh_database: str) -> None:
    environment = {**os.environ, "DATABASE_URL": fresh_database}
    for step in (["downgrade", "base"], ["upgrade", "head"]):
        subprocess.run(
            [sys.executable, "-m", "alembic", *step],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
        )
        tables = set(inspect(create_engine(fresh_database)).get_table_names()) - {"alembic_version"}
        assert tables == (set(models.metadata.tables) if step[0] == "upgrade" else set())


def undeclared(base: type[DeclarativeBase]) -> list[str]:
    """Return each thing that a table of `base` forgets to declare at its class, with the table's name."""
    reports = []
    for table in (mapper.class_ for mapper in base.registry.mappers):
        name = table.__tablename__
        if not hasattr(table, "__rights__"):
            reports.append(f"the table {name} declares no rights")
        place = getattr(table, "__export__", None)
        if place is None:
            reports.append(f"the table {name} declares no place in exports")
        if place in (Export.ROWS, Export.LONG_TABLE) and "study_id" not in table.__table__.columns:
            reports.append(f"the table {name} is exported and its rows belong to no study")
        for column in table.__table__.columns:
            try:
                meaning(column)
            except LookupError as error:
                reports.append(str(error))
    return reports


def test_every_table_declares_its_rights_its_place_in_exports_and_its_columns() -> None:
    assert len(Base.registry.mappers) == len(models.metadata.tables) > 20
    assert undeclared(Base) == []


def test_a_table_that_declares_nothing_is_reported_by_its_name() -> None:
    class Sample(DeclarativeBase):
        metadata = MetaData()

    class Forgetful(Sample):
        __tablename__ = "meters"
        id: Mapped[int] = mapped_column(primary_key=True)
        steps: Mapped[int]

    class OfNobody(Sample):
        __tablename__ = "weathers"
        __rights__ = "INSERT"
        __export__ = Export.ROWS
        id: Mapped[int] = mapped_column(primary_key=True)

    assert sorted(undeclared(Sample)) == [
        "the column meters.steps declares no meaning",
        "the table meters declares no place in exports",
        "the table meters declares no rights",
        "the table weathers is exported and its rows belong to no study",
    ]
