"""Rules of words: what is public is documented, and a value is called by its noun."""

import ast
from collections.abc import Iterator

from tests.house.places import PROGRAMS
from tests.house.source import Function, House

VAGUE = "told"


def public_code_is_documented(house: House) -> Iterator[str]:
    """Modules have a docstring, and so have public functions, public classes and their public methods.

    A function whose body is `...` describes a type and needs none; an empty file needs none either.
    """
    for source in house.under(*PROGRAMS, "."):
        if source.tree.body and not ast.get_docstring(source.tree):
            yield f"{source.path} has no docstring"
        for name, definition in _public(source.tree):
            if not ast.get_docstring(definition) and not _is_stub(definition):
                yield f"{source.path}: {name} has no docstring"


def _public(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            methods = node.body if isinstance(node, ast.ClassDef) else []
            for method in methods:
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


def _is_stub(definition: Function | ast.ClassDef) -> bool:
    """The body is nothing but `...`."""
    body = definition.body
    return (
        isinstance(definition, Function)
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and body[0].value.value is ...
    )


def no_value_is_called_told(house: House) -> Iterator[str]:
    """No variable, parameter or attribute is called `told`: the word has had ten meanings here."""
    for source in house.under(*PROGRAMS, "tests", "."):
        count = sum(_name(node) == VAGUE for node in source.nodes)
        if count:
            yield f"{source.path}: values called {VAGUE}: {count}"


def _name(node: ast.AST) -> str | None:
    """Return the name that a node gives to something, if it gives one."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return name
        case ast.arg(arg=name) | ast.ExceptHandler(name=name) | ast.alias(asname=name):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.MatchAs(name=name) | ast.MatchStar(name=name) | ast.MatchMapping(rest=name):
            return name
    return None
