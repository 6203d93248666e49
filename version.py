"""The product's version and the stamp of the code that runs."""

import functools
import hashlib
from pathlib import Path

VERSION = "0.1.0"
PARTS = ("algorithm", "api", "models", "workers")


@functools.cache
def code_version() -> str:
    """Return VERSION, "+" and 12 hex digits of a SHA-256 over every source file: the same for equal code."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(file for part in PARTS for file in (root / part).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{VERSION}+{digest.hexdigest()[:12]}"
