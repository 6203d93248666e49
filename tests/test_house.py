"""The rules of this house, read from the code itself."""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("algorithm", "analysis", "api", "models", "replay", "workers")
PROGRAMS = (*LAYERS, "local", "rehearsal", "migrations")
MAY_IMPORT = {
    "algorithm": {"algorithm", "numpy", "scipy"},
    "models": {
        "models",
        "audit_chain",
        "settings",
        "sqlalchemy",
        "numpy",
        "psycopg2",
        "cryptography",
        "orjson",
        "obstore",
    },
    "replay": {"replay", "algorithm", "audit_chain", "numpy", "pyarrow", "pydantic"},
    "api": {
        *("api", "models", "algorithm", "replay", "audit_chain", "settings", "version", "logs"),
        *(
            "flask",
            "werkzeug",
            "pydantic",
            "pydantic_core",
            "sqlalchemy",
            "alembic",
            "numpy",
            "click",
            "structlog",
        ),
        *("celery", "kombu", "redis", "jwt", "argon2", "cryptography", "flask_limiter", "limits"),
        *("flask_openapi_swagger", "prometheus_client", "psycopg2", "gunicorn"),
    },
    "workers": {
        *("workers", "models", "algorithm", "replay", "settings", "version", "logs"),
        *("celery", "kombu", "redis", "requests", "pydantic", "sqlalchemy", "numpy", "structlog", "psycopg2"),
        "urllib3",
    },
    "analysis": {"analysis", "algorithm", "numpy", "scipy", "jax"},
}
IMPURE = {"os", "time", "logging", "random", "pathlib", "socket", "subprocess", "io", "shutil", "threading"}


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(*folders: str) -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path, tree in sources(*folders):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def length(function: ast.FunctionDef) -> int:
    """Lines of code, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("layer", LAYERS)
def test_the_import_arrows_point_inwards(layer: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in sources(layer)
        for name in imports(tree)
        if name.partition(".")[0] not in MAY_IMPORT[layer] | sys.stdlib_module_names
    }
    assert not wrong


def test_the_algorithm_has_no_input_output_clock_or_log() -> None:
    wrong = {
        f"{path.name} imports {name}"
        for path, tree in sources("algorithm")
        for name in imports(tree)
        if name.partition(".")[0] in IMPURE
    }
    assert not wrong


def test_only_the_session_module_commits() -> None:
    wrong = [
        path.name
        for path, _ in sources(*PROGRAMS)
        if ".commit(" in path.read_text(encoding="utf-8")
        and path.relative_to(ROOT).as_posix() not in {"models/core/session.py", "migrations/env.py"}
    ]
    assert not wrong


def test_migrations_never_import_models() -> None:
    for path, tree in sources("migrations"):
        assert not [name for name in imports(tree) if name.startswith("models")], path


def test_celeryconfig_imports_nothing_of_ours() -> None:
    tree = ast.parse((ROOT / "celeryconfig.py").read_text(encoding="utf-8"))
    assert {name.partition(".")[0] for name in imports(tree)} == {"os", "celery", "kombu"}


def test_files_and_functions_stay_small() -> None:
    long_files = [
        path.relative_to(ROOT).as_posix()
        for path, _ in sources(*LAYERS, "local", "rehearsal")
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    ]
    assert not long_files
    lengths = [length(function) for _, function in functions(*LAYERS, "local", "rehearsal")]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 30


def test_public_functions_say_what_they_do() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{function.name}"
        for path, function in functions(*LAYERS)
        if not function.name.startswith("_")
        and not ast.get_docstring(function)
        and not isinstance(function.body[0], ast.Expr)
        and function.col_offset == 0
    ]
    assert not silent
