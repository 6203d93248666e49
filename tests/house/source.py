"""The repository's Python files as the rules read them, each parsed once and only if a rule asks."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from tests.house.places import READ

Function = ast.FunctionDef | ast.AsyncFunctionDef


class NoFilesError(LookupError):
    """The folders or the file that a rule reads are empty or missing, so the rule would check nothing."""


@dataclass(frozen=True, eq=False)
class Source:
    """One Python file: its path from the repository's root, written with slashes, and its text."""

    path: str
    text: str

    @property
    def folder(self) -> str:
        """The folder that holds the file; "." for the repository's root."""
        return str(PurePosixPath(self.path).parent)

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return PurePosixPath(self.path).stem

    @cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the syntax tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """Every function of the file, methods and nested functions included."""
        return tuple(node for node in self.nodes if isinstance(node, Function))

    @cached_property
    def imports(self) -> tuple[str, ...]:
        """Dotted names of all that the file imports.

        `import a.b.c`, `from a.b import c` and, in the folder a, `from .b import c` all give "a.b.c".
        """
        names: list[str] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = PurePosixPath(self.folder).parts
                # one dot is the file's own folder, each further dot the one above
                base = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join((*base, node.module) if node.module else base)
                names += [f"{module}.{alias.name}" for alias in node.names]
        return tuple(names)


class House:
    """A set of source files: the repository's own, or the few of a sample."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = {source.path: source for source in sources}

    @classmethod
    def read(cls, root: Path) -> "House":
        """Read the Python files in the root itself and those at any depth of the folders in `READ`."""
        paths = [*root.glob("*.py"), *(path for folder in READ for path in (root / folder).rglob("*.py"))]
        return cls(
            Source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
            for path in sorted(paths)
        )

    def under(self, *folders: str) -> list[Source]:
        """Return the files at any depth of `folders`, where "." stands for the files in the root itself.

        Raises NoFilesError where there is not a single one.
        """
        sources = [
            source
            for source in self._sources.values()
            if source.path.partition("/")[0] in folders or (source.folder == "." and "." in folders)
        ]
        if not sources:
            raise NoFilesError(f"no Python files in {', '.join(folders)}")
        return sources

    def file(self, path: str) -> Source:
        """Return the file at `path`, or raise NoFilesError."""
        if path not in self._sources:
            raise NoFilesError(f"no file {path}")
        return self._sources[path]

    def __contains__(self, path: str) -> bool:
        return path in self._sources
