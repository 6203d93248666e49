"""Rules of the rooms: which files a folder holds, and their names."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.house.places import AREAS, ENTRY_POINTS, FIXED_STEMS, LAYERS, NAMED_FILES, READ
from tests.house.source import House, NoFilesError


def named_places_exist(house: House) -> Iterator[str]:
    """Every folder that the rules read has files, and every file that a rule excepts exists.

    Otherwise a move would switch a rule off, or leave an exception behind for a later file of that name.
    """
    house.under(*READ)
    for folder in READ:
        try:
            house.under(folder)
        except NoFilesError:
            yield f"{folder} holds no Python file"
    yield from (f"{path} does not exist" for path in NAMED_FILES if path not in house)


def layers_hold_areas(house: House) -> Iterator[str]:
    """In a layer's root there are only the folders of its areas, `__init__.py` and the entry points."""
    for source in house.under(*LAYERS):
        _, room, *inside = source.path.split("/")
        allowed = room in AREAS if inside else room == "__init__.py" or source.path in ENTRY_POINTS
        if not allowed:
            yield f"{source.path} lies in no area"


def stems_are_not_of_the_standard_library(house: House) -> Iterator[str]:
    """No file is called `queue`: a reader of `import queue` would ask which one is meant."""
    for source in house.under(*LAYERS):
        if source.stem in sys.stdlib_module_names:
            yield f"{source.path} is called like a module of the standard library"


def stems_are_unique_in_a_layer(house: House) -> Iterator[str]:
    """A name means one file in each layer, but for the fixed names that every area may use."""
    sources = house.under(*LAYERS)
    counts = Counter((source.path.partition("/")[0], source.stem) for source in sources)
    for source in sources:
        layer = source.path.partition("/")[0]
        if counts[layer, source.stem] > 1 and source.stem not in FIXED_STEMS:
            yield f"{source.path} is not the only {source.stem} of {layer}"


def layers_are_mirrored_by_tests(house: House) -> Iterator[str]:
    """tests/<layer>/<area>/test_<stem>.py tests <layer>/<area>/<stem>.py.

    Tests of more than one file are in tests/flows.
    """
    for source in house.under("tests"):
        path = PurePosixPath(source.path).relative_to("tests")
        if path.parts[0] in LAYERS and path.name.startswith("test_"):
            tested = str(path.with_name(path.name.removeprefix("test_")))
            if tested not in house:
                yield f"{source.path} tests {tested}, which does not exist"
