"""Rules of size: folders, files and functions that one can take in at a glance."""

import ast
import math
from collections import Counter
from collections.abc import Iterator
from statistics import median

from tests.house.places import PROGRAMS
from tests.house.source import Function, House

FILES_IN_A_FOLDER = 20
LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 40
LINES_OF_THE_MEDIAN = 9
PERCENT_USED_ONCE = 12


def folders_stay_small(house: House) -> Iterator[str]:
    """A folder of the programs or of the tests holds at most 20 Python files, not counting `__init__.py`."""
    sources = house.under(*PROGRAMS, "tests")
    counts = Counter(source.folder for source in sources if source.stem != "__init__")
    for folder, count in counts.items():
        if count > FILES_IN_A_FOLDER:
            yield f"{folder} holds {count} files"


def files_stay_short(house: House) -> Iterator[str]:
    """A file of the programs or of the tests has at most 300 lines."""
    for source in house.under(*PROGRAMS, "tests", "."):
        if len(source.text.splitlines()) > LINES_OF_A_FILE:
            yield f"{source.path} is longer than {LINES_OF_A_FILE} lines"


def functions_stay_short(house: House) -> Iterator[str]:
    """A function of the programs or of the tests has at most 40 lines, without signature and docstring."""
    for source in house.under(*PROGRAMS, "tests", "."):
        for function in source.functions:
            if _length(function) > LINES_OF_A_FUNCTION:
                yield f"{source.path}: {function.name} is longer than {LINES_OF_A_FUNCTION} lines"


def the_median_function_is_short(house: House) -> Iterator[str]:
    """Half of the programs' functions have at most 9 lines, without signature and docstring."""
    sources = house.under(*PROGRAMS, ".")
    lines = median(_length(function) for source in sources for function in source.functions)
    if lines > LINES_OF_THE_MEDIAN:
        yield f"the median function has {lines:g} lines"


def few_private_functions_are_used_once(house: House) -> Iterator[str]:
    """At most 12 % of the programs' functions are private and used once, or one reads by jumping.

    The report gives the share in whole percent, so that it changes with each percent. `used_once` lists them.
    """
    count = sum(len(source.functions) for source in house.under(*PROGRAMS, "."))
    percent = 100 * len(used_once(house)) / count
    if percent > PERCENT_USED_ONCE:
        yield f"more than {math.ceil(percent) - 1} % of the functions are private and used once"


def used_once(house: House) -> list[str]:
    """Return "path: name" of each private function of a module that its file names once outside of it."""
    names = []
    for source in house.under(*PROGRAMS, "."):
        mentions = Counter(node.id for node in source.nodes if isinstance(node, ast.Name))
        for function in source.tree.body:
            if isinstance(function, Function) and function.name.startswith("_"):
                inside = sum(
                    isinstance(node, ast.Name) and node.id == function.name for node in ast.walk(function)
                )
                if mentions[function.name] - inside == 1:
                    names.append(f"{source.path}: {function.name}")
    return names


def _length(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
