"""Samples of broken rules: a tiny source tree and the rule's reports about it, in one text file."""

import re
from pathlib import Path

from tests.house.source import House, Source

HEADER = re.compile(r"^--- (.+)\n", flags=re.MULTILINE)
REPEATED = re.compile(r"^\((\d+) times\) (.*\n)", flags=re.MULTILINE)
REPORTED = "reported"


def read(path: Path) -> tuple[House, list[str]]:
    """Return the sample's source files and the sorted reports that its rule must give.

    A file begins with a line "--- its/path.py", the reports follow "--- reported", one a line. A line that
    begins with "(301 times) " stands for 301 lines.
    """
    _, *pieces = HEADER.split(path.read_text(encoding="utf-8"))
    texts = dict(zip(pieces[::2], pieces[1::2], strict=True))
    reports = texts.pop(REPORTED).splitlines()
    return House(Source(name, REPEATED.sub(_repeat, text)) for name, text in texts.items()), sorted(reports)


def _repeat(line: re.Match[str]) -> str:
    return line[2] * int(line[1])
