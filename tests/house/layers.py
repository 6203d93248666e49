"""Rules of the arrows: which file may import which."""

import sys
from collections.abc import Iterator

from tests.house.places import AREAS, ENTRY_POINTS, LAYERS
from tests.house.source import House, Source

MAY_IMPORT = {
    "algorithm": {"algorithm", "numpy", "scipy"},
    "models": {
        *("models", "audit_chain", "settings"),
        *("sqlalchemy", "numpy", "psycopg2", "cryptography", "orjson", "obstore"),
    },
    "services": {
        *("services", "models", "algorithm", "settings", "version"),
        *("sqlalchemy", "numpy", "structlog", "orjson", "pydantic"),
    },
    "api": {
        *("api", "services", "models", "algorithm", "replay", "audit_chain", "settings", "version", "logs"),
        *("flask", "werkzeug", "pydantic", "pydantic_core", "sqlalchemy", "alembic", "numpy", "click"),
        *("structlog", "celery", "kombu", "redis", "jwt", "argon2", "cryptography", "limits"),
        *("flask_openapi_swagger", "prometheus_client", "psycopg2", "gunicorn"),
    },
    "workers": {
        *("workers", "services", "models", "algorithm", "replay", "settings", "version", "logs"),
        *("celery", "kombu", "redis", "requests", "pydantic", "sqlalchemy", "numpy", "structlog", "psycopg2"),
        "urllib3",
    },
    "replay": {"replay", "algorithm", "audit_chain", "numpy", "pyarrow", "pydantic"},
    "analysis": {"analysis", "algorithm", "numpy", "scipy", "jax"},
}
IMPURE = {"os", "time", "logging", "random", "pathlib", "socket", "subprocess", "io", "shutil", "threading"}
REPLAYING = ("workers/oversight", "workers/research")


def imports_follow_the_arrows(house: House) -> Iterator[str]:
    """A layer imports itself, the layers below it, the packages listed for it and the standard library."""
    for source in house.under(*MAY_IMPORT):
        allowed = MAY_IMPORT[source.path.partition("/")[0]] | sys.stdlib_module_names
        yield from _reports(source, [name for name in source.imports if _top(name) not in allowed])


def areas_import_no_later_area(house: House) -> Iterator[str]:
    """An area imports itself and the areas before it, in its own layer and in those below."""
    for source in house.under(*LAYERS):
        parts = source.path.split("/")
        if source.path in ENTRY_POINTS or parts[1] not in AREAS:  # its place is the business of another rule
            continue
        later = AREAS[AREAS.index(parts[1]) + 1 :]
        names = [name.split(".") for name in source.imports]
        wrong = [name for name in names if name[0] in LAYERS and name[1:2] and name[1] in later]
        yield from _reports(source, [".".join(name[:3]) for name in wrong])


def entry_points_are_imported_by_nobody(house: House) -> Iterator[str]:
    """No file of the programs imports an entry point or anything else of a layer's root.

    Tests and `local` may, and so may gunicorn.conf.py, which starts the API.
    """
    for source in house.under(*LAYERS, "replay", "analysis", "rehearsal", "."):
        if source.path == "gunicorn.conf.py":
            continue
        names = [name.split(".") for name in source.imports]
        wrong = [name for name in names if name[0] in LAYERS and (not name[1:] or name[1] not in AREAS)]
        yield from _reports(source, [".".join(name[:2]) for name in wrong])


def replay_is_imported_by_few(house: House) -> Iterator[str]:
    """Every layer that may import replay sees `replay.format`; only two areas of the workers see the rest."""
    for source in house.under(*LAYERS):
        if not source.path.startswith(tuple(f"{folder}/" for folder in REPLAYING)):
            names = [name for name in source.imports if _top(name) == "replay"]
            yield from _reports(source, [name for name in names if name.split(".")[1:2] != ["format"]])


def the_algorithm_has_no_input_output_clock_or_log(house: House) -> Iterator[str]:
    """The mathematics is pure: time and randomness come in as arguments."""
    for source in house.under("algorithm"):
        yield from _reports(source, [name for name in source.imports if _top(name) in IMPURE])


def migrations_import_no_models(house: House) -> Iterator[str]:
    """A migration stays as it was written, while the models go on changing."""
    for source in house.under("migrations"):
        yield from _reports(source, [name for name in source.imports if _top(name) == "models"])


def celeryconfig_imports_nothing_of_ours(house: House) -> Iterator[str]:
    """Flower reads celeryconfig.py too, and should load none of our programs."""
    source = house.file("celeryconfig.py")
    yield from _reports(
        source, [name for name in source.imports if _top(name) not in {"os", "celery", "kombu"}]
    )


def _top(name: str) -> str:
    return name.partition(".")[0]


def _reports(source: Source, names: list[str]) -> Iterator[str]:
    """One report for each name, however many lines import it."""
    yield from (f"{source.path} imports {name}" for name in sorted(set(names)))
