"""The maps of the code are true: whatever they name in backticks, and wherever they link to, exists.

Names without a dot or slash are words, and not looked for unless they are settings.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import models
from api.app import DOMAINS
from settings import Settings
from tests.house.places import FIXED_STEMS, LAYERS
from tests.house.source import Function, House, NoFilesError, Source

ROOT = Path(__file__).parent.parent
MAPS = ("docs/architecture.md", "CONTRIBUTING.md", "docs/database-access.md", "SECURITY.md")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
PATH = re.compile(r"[\w.-]*/[\w./-]*|[\w.-]+\.(py|md|json|toml|yml|lock)")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
ROUTE = re.compile(r"(?:(GET|POST|PUT|DELETE) )?(/[\w/<>]+)")
SETTING = re.compile(r"KAIROS_[A-Z_]+")
WORDS = {"kairos_broker_up", "/actions", "/healthcheck"}


@pytest.fixture(scope="module")
def house() -> House:
    """The Python files of this repository."""
    return House.read(ROOT)


def page(name: str) -> str:
    """The text of a page without its blocks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def names(name: str) -> list[str]:
    """The names in backticks, and the functions in blocks of text, each once and in their order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    in_text = re.findall(rf"\b(?:{'|'.join(LAYERS)})\.[a-z_]+\.\w+\.\w+", text)
    return list(dict.fromkeys(re.findall(r"`([^`\n]+)`", page(name)) + in_text))


def defined(body: list[ast.stmt]) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Names that these statements define or import, each with the statements inside of it."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.body
            case ast.Assign():
                yield from ((target.id, []) for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, []
            case ast.ImportFrom():
                yield from ((alias.asname or alias.name, []) for alias in node.names)


def module(house: House, parts: list[str]) -> tuple[Source, list[str]] | None:
    """The file of the longest module that a dotted name begins with, and the rest of the name."""
    for size in range(len(parts), 0, -1):
        stem = "/".join(parts[:size])
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if path in house:
                return house.file(path), parts[size:]
    return None


def is_defined(house: House, name: str) -> bool:
    """Whether a dotted name is that of a module, or of something public in one."""
    place = module(house, name.split("."))
    if place is None:
        return False
    source, rest = place
    body = source.tree.body
    for part in rest:
        inside = dict(defined(body))
        if part.startswith("_") or part not in inside:
            return False
        body = inside[part]
    return True


def is_column(name: str) -> bool:
    """Whether `table.column` is one of ours."""
    table, _, column = name.partition(".")
    return table in models.metadata.tables and column in models.metadata.tables[table].columns


def is_task(name: str) -> bool:
    """Whether a task has a route."""
    return f'"{name}": {{"queue"' in (ROOT / "celeryconfig.py").read_text(encoding="utf-8")


def is_route(method: str | None, path: str) -> bool:
    """Whether there is this route; `<id>` stands for any variable of a path."""
    routes = {
        (endpoint.method, re.sub(r"<\w+:\w+>", "<id>", endpoint.path))
        for domain in DOMAINS
        for endpoint in domain.endpoints
    }
    return (method, path) in routes if method else path in {route for _, route in routes}


def is_path(house: House, path: str) -> bool:
    """Whether there is this file or folder; `<layer>` and the like may be anything.

    A name that every area may use, such as tasks.py, stands for all of them.
    """
    stem = path.removesuffix(".py")
    if stem in FIXED_STEMS:
        return any(source.stem == stem for source in house.under(*LAYERS))
    return any(ROOT.glob(re.sub(r"<\w+>", "*", path)))


def is_test(house: House, path: str, function: str) -> bool:
    """Whether a file of tests has this test."""
    try:
        tree = house.file(path).tree
    except NoFilesError:
        return False
    return function in {node.name for node in tree.body if isinstance(node, Function)}


def exists(house: House, name: str) -> bool:
    """Whether what a page names is there."""
    if test := TEST.fullmatch(name):
        return is_test(house, test[1], test[2])
    if SETTING.fullmatch(name):
        return name.removeprefix("KAIROS_").lower() in Settings.model_fields
    if (route := ROUTE.fullmatch(name)) and name not in WORDS:
        return is_route(route[1], route[2])
    if PATH.fullmatch(re.sub(r"<\w+>", "x", name)) and name not in WORDS:
        return is_path(house, name)
    if NAME.fullmatch(name):
        return is_defined(house, name) or is_column(name) or is_task(name)
    return True


@pytest.mark.parametrize("name", MAPS)
def test_everything_that_a_map_names_exists(house: House, name: str) -> None:
    assert len(names(name)) > 10
    assert [named for named in names(name) if not exists(house, named)] == []


@pytest.mark.parametrize("name", MAPS)
def test_every_route_that_a_map_tells_of_exists(name: str) -> None:
    told_of = re.findall(r"\b(GET|POST|PUT|DELETE) (/[\w/<>]*\w>?)", page(name))
    assert [route for route in told_of if not is_route(*route)] == []


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", MAPS)
def test_every_link_of_a_map_leads_somewhere(name: str) -> None:
    for path, anchor in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", page(name)):
        target = (ROOT / name).parent / path
        assert target.is_file(), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), anchor


@pytest.mark.parametrize(
    "wrong",
    [
        "services.trial.decide.decided",
        "services.trial.decisions.decide",
        "models.core.session.Prepared.sooner",
        "models.core.session._finish",
        "studies.mood",
        "kairos.mood",
        "api/trial/action.py",
        "tests/<layer>/moods",
        "tests/test_maps.py::test_nothing",
        "POST /action",
        "KAIROS_MOOD",
    ],
)
def test_what_does_not_exist_is_seen(house: House, wrong: str) -> None:
    assert not exists(house, wrong)
