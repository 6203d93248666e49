"""The audit's chain: what each row's hash covers, and what is wrong with a chain. Standard library alone.

A row's hash is the SHA-256 of its canonical JSON, which holds the hash of the row before. The first row
follows the SHA-256 of the study's key, so that a chain belongs to one study. docs/conduct.md defines it all.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

FIELDS = (
    *("seq", "created_at", "client_id", "role", "participant_id", "act", "reason"),
    *("before", "after", "prev_hash"),
)
EXACT = 2**53  # from here on a float64 is not every integer
HASH = re.compile(r"[0-9a-f]{64}")
PLACED = re.compile(r"(\d+):([0-9a-f]{64})")


class Anchor(NamedTuple):
    """A head that was published: a row's hash and, where it was told, its number."""

    seq: int | None
    hash: str


def canonical(row: Mapping[str, Any]) -> bytes:
    """The bytes that a row's hash covers. Raises ValueError or TypeError for what has no such form."""
    told = {name: _plain(row[name]) for name in FIELDS}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(row: Mapping[str, Any]) -> str:
    """The hash of a row, in hexadecimal."""
    return hashlib.sha256(canonical(row)).hexdigest()


def _plain(value: Any) -> Any:
    """What a value is after a way through JSON in any database: a whole number has no point."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, float):
        if not math.isfinite(value) or abs(value) >= EXACT:
            raise ValueError(f"{value} cannot stand in the audit")
        return int(value) if value.is_integer() else value
    if isinstance(value, int) and abs(value) >= EXACT:
        raise ValueError(f"{value} cannot stand in the audit")
    return value


def check(rows: Iterable[Mapping[str, Any]], genesis: str, anchor: Anchor | None = None) -> list[str]:
    """Everything that is wrong with a chain, each with the number of its row; nothing where it is whole.

    genesis: what the first row follows. Without an anchor a tail that was cut off, or a chain that was
    written anew from some row on, looks whole.
    """
    ordered = sorted(rows, key=lambda row: int(row["seq"]))
    found = [*_links(ordered, genesis)]
    if anchor is not None:
        found += _anchored(ordered, anchor)
    return found


def _links(rows: list[Mapping[str, Any]], genesis: str) -> Iterator[str]:
    expected, before = 1, genesis
    for row in rows:
        seq = row["seq"]
        if seq < expected:
            yield f"row {seq} stands twice"
            continue
        if seq > expected:
            yield (
                f"row {expected} is missing"
                if seq == expected + 1
                else f"rows {expected} to {seq - 1} are missing"
            )
        if digest(row) != row["hash"]:
            yield f"row {seq} was altered: its hash is not that of what it says"
        if seq == expected and row["prev_hash"] != before:
            yield _unlinked(seq)
        expected, before = seq + 1, row["hash"]
    if expected == 1:
        yield "row 1 is missing: the chain is empty"


def _unlinked(seq: int) -> str:
    if seq == 1:
        return "row 1 does not follow the study's key: it was replaced, or is another study's"
    return f"row {seq} does not follow row {seq - 1}: one of the two was replaced or moved"


def _anchored(rows: list[Mapping[str, Any]], anchor: Anchor) -> Iterator[str]:
    hashes = {row["seq"]: row["hash"] for row in rows}
    if anchor.seq is None:
        if anchor.hash not in hashes.values():
            yield "no row has the anchor's hash: the tail was cut off, or the chain was written anew"
    elif anchor.seq not in hashes:
        yield f"row {anchor.seq}, the anchor's, is missing: the chain ends at row {max(hashes, default=0)}"
    elif hashes[anchor.seq] != anchor.hash:
        yield f"row {anchor.seq} has not the anchor's hash: the chain was written anew"


def read_anchor(text: str) -> Anchor:
    """The anchor in a text. Raises ValueError.

    It is SEQ:HASH, a hash alone, or a JSON object with `seq` and `hash`: a log line, the answer of
    `audit head`, a notification, whose `detail` has them.
    """
    told = text.strip()
    placed = PLACED.fullmatch(told)
    if placed:
        return Anchor(int(placed[1]), placed[2])
    if HASH.fullmatch(told):
        return Anchor(None, told)
    try:
        found = json.loads(told)
        found = found.get("detail", found)
        seq, hash_ = found["seq"], found["hash"]
    except (ValueError, LookupError, TypeError, AttributeError):
        seq, hash_ = 0, ""
    if not isinstance(seq, int) or seq < 1 or not isinstance(hash_, str) or not HASH.fullmatch(hash_):
        raise ValueError("is no anchor: SEQ:HASH, a hash, or a JSON object with seq and hash")
    return Anchor(seq, hash_)
