"""The generated pages of docs/ are what the code says now."""

import ast
import json
import re
from pathlib import Path

import click
import pytest

from algorithm.trial import protocol
from algorithm.trial.designs import DESIGNS
from api.app import COMMANDS
from docs import generate
from models.core.audit import Act
from models.core.grants import service_rights
from services.core.faults import CoreFault
from services.core.refusals import all_faults
from services.trial.faults import TrialFault
from settings import Settings

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "text"), [("openapi.json", generate.openapi_json()), ("errors.md", generate.errors_md())]
)
def test_the_page_is_current(name: str, text: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == text, "run: python -m docs.generate"


def test_the_readmes_table_of_settings_is_current() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == generate.readme(text), "run: python -m docs.generate"
    assert "`KAIROS_SIGNING_KEYS`" in generate.settings_table()


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", sorted(DESIGNS))
def test_the_file_of_a_protocol_is_what_the_defaults_of_the_code_mean(name: str) -> None:
    written = (ROOT / "protocols" / f"{name}.json").read_text(encoding="utf-8")
    assert written == generate.protocol_json(name), "run: python -m docs.generate"
    assert protocol.load(json.loads(written)).digest == protocol.digest({"protocol": name})


def test_every_command_is_told_to_the_operator() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    groups = [command for command in COMMANDS if isinstance(command, click.Group)]
    commands = [f"{group.name} {name}" for group in groups for name in group.commands]
    assert len(commands) > 10
    assert [command for command in commands if command not in page] == []


def test_the_rights_of_the_services_role_are_told_table_by_table() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    explained = {
        name: rights.replace("read, ", "").upper()
        for names, rights in re.findall(
            r"^\| ([a-z_, ]+) \| all \| (read[a-z, ]*) \|", page, flags=re.MULTILINE
        )
        for name in names.split(", ")
    }
    declared = service_rights()
    assert explained | {"studies": declared["studies"]} == declared


def test_no_number_of_a_fault_and_no_name_of_an_act_stands_twice() -> None:
    codes = [fault.code for fault in all_faults()]
    acts = [act for area in Act.__subclasses__() for act in area]
    assert (len(codes), len(acts)) > (50, 25)
    assert len(set(codes)) == len(codes)
    assert len({str(act) for act in acts}) == len(acts)


def test_every_code_of_the_workers_is_explained() -> None:
    """Every whole number from 300 to 399 in the workers' source."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "workers").rglob("*.py")]
    numbers = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    used = {value for value in numbers if isinstance(value, int) and 300 <= value < 400}
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", generate.errors_md(), flags=re.MULTILINE)}
    assert len(used) > 15
    assert used <= explained


def test_codes_of_the_miwaves_service_keep_their_meaning() -> None:
    """A few by hand, as that service's source has them."""
    faults = {
        4: CoreFault.REGISTRATION_CLOSED,
        6: CoreFault.NAME_TAKEN,
        7: CoreFault.CREDENTIALS,
        100: TrialFault.PARTICIPANT_USER,
        106: TrialFault.EVENINGS,
        108: TrialFault.PARTICIPANT_EXISTS,
        203: TrialFault.ACTION_UNKNOWN,
        210: TrialFault.CANNABIS_USE,
        300: TrialFault.WINDOW_UNKNOWN,
        301: TrialFault.WINDOW_PHASE,
    }
    assert {code: fault.code for code, fault in faults.items()} == {code: code for code in faults}
