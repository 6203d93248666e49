"""Rules of the tools: the frameworks, the commit and the SQL each have their own few places."""

import ast
from collections.abc import Iterator

from tests.house.places import CELERY_FILES, CLICK_FILES, COMMIT_FILES, PROGRAMS, SQL_FILES
from tests.house.source import House, Source

# `local` starts the workers and asks the broker whether they answer
CELERY_FOLDERS = ("workers", "local")
STATEMENTS = {"select", "text", "insert", "update", "delete", "*"}


def frameworks_stay_in_their_places(house: House) -> Iterator[str]:
    """Flask is for the api, click for its files of commands, celery for the workers and the api's broker."""
    for source in house.under(*PROGRAMS, "."):
        for framework in sorted({name.partition(".")[0] for name in source.imports}):
            if not _may_import(source, framework):
                yield f"{source.path} imports {framework}"


def _may_import(source: Source, framework: str) -> bool:
    folder = source.path.partition("/")[0]
    if framework == "flask" or framework.startswith("flask_"):
        return folder == "api"
    if framework == "click":
        return source.stem == "commands" or source.path in CLICK_FILES
    if framework in {"celery", "kombu"}:
        return folder in CELERY_FOLDERS or source.path in CELERY_FILES
    return True


def one_place_commits(house: House) -> Iterator[str]:
    """Only the session's module ends a transaction, so that no act is half stored."""
    for source in house.under(*PROGRAMS, "migrations", "."):
        attributes = {node.attr for node in source.nodes if isinstance(node, ast.Attribute)}
        if "commit" in attributes and source.path not in COMMIT_FILES:
            yield f"{source.path} commits"


def sql_stays_in_models(house: House) -> Iterator[str]:
    """Services make no SQL statements, and in the api only the health check, the dump and the backup may."""
    for source in house.under("services", "api"):
        if source.path not in SQL_FILES:
            yield from (f"{source.path} makes SQL with {name}" for name in sorted(_statements(source)))


def _statements(source: Source) -> set[str]:
    """Makers of statements that a file imports from SQLAlchemy, or reaches as `sqlalchemy.select`."""
    names = [name.split(".") for name in source.imports]
    imported = {name[-1] for name in names if name[0] == "sqlalchemy"}
    modules = {
        alias.asname or "sqlalchemy"
        for node in source.nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] == "sqlalchemy"
    }
    reached = {
        node.attr
        for node in source.nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    return (imported | reached) & STATEMENTS
