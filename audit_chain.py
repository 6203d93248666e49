"""The audit's chain of hashes: the hash of a row, and the check of a whole chain. Standard library alone.

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
NUMBERED = re.compile(r"(\d+):([0-9a-f]{64})")


class Anchor(NamedTuple):
    """A published head of a chain: a row's hash and its number, or None where the number is not known."""

    seq: int | None
    hash: str


def canonical(row: Mapping[str, Any]) -> bytes:
    """Return the bytes that a row's hash covers: UTF-8 JSON with sorted keys and no spaces.

    Raises ValueError or TypeError for values that JSON cannot hold.
    """
    fields = {name: _plain(row[name]) for name in FIELDS}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(row: Mapping[str, Any]) -> str:
    """Return the hash of a row, in hexadecimal."""
    return hashlib.sha256(canonical(row)).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value as it is after it was stored as JSON in any database: 2.0 becomes 2, instants are UTC.

    Raises ValueError for a number that is not finite, or whose neighbours a float64 cannot tell apart.
    """
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
    """Return a sentence with the row's number for each fault of a chain; none where it is whole.

    genesis: the hash that the first row follows. Without an anchor a chain whose tail was cut off, or that
    was written anew from some row on, looks whole.
    """
    ordered = sorted(rows, key=lambda row: int(row["seq"]))
    faults = [*_broken_links(ordered, genesis)]
    if anchor is None:
        return faults
    hashes = {row["seq"]: row["hash"] for row in ordered}
    if anchor.seq is None:
        if anchor.hash not in hashes.values():
            faults.append("no row has the anchor's hash: the tail was cut off, or the chain was written anew")
    elif anchor.seq not in hashes:
        last = max(hashes, default=0)
        faults.append(f"row {anchor.seq}, the anchor's, is missing: the chain ends at row {last}")
    elif hashes[anchor.seq] != anchor.hash:
        faults.append(f"row {anchor.seq} has not the anchor's hash: the chain was written anew")
    return faults


def _broken_links(rows: list[Mapping[str, Any]], genesis: str) -> Iterator[str]:
    """Yield the faults that the rows show by themselves: gaps, repeats, altered rows, wrong predecessors."""
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
        # after a gap the row before is not there to compare with: the gap itself is the fault
        if seq == expected and row["prev_hash"] != before:
            yield (
                "row 1 does not follow the study's key: it was replaced, or is another study's"
                if seq == 1
                else f"row {seq} does not follow row {seq - 1}: one of the two was replaced or moved"
            )
        expected, before = seq + 1, row["hash"]
    if expected == 1:
        yield "row 1 is missing: the chain is empty"


def read_anchor(text: str) -> Anchor:
    """Return the anchor that a text holds. Raises ValueError.

    The text is SEQ:HASH, a hash alone, or a JSON object with `seq` and `hash`: a log line, the answer of
    `audit head`, or a notification, which has them in its `detail`.
    """
    text = text.strip()
    numbered = NUMBERED.fullmatch(text)
    if numbered:
        return Anchor(int(numbered[1]), numbered[2])
    if HASH.fullmatch(text):
        return Anchor(None, text)
    try:
        document = json.loads(text)
        head = document.get("detail", document)
        seq, hash_ = head["seq"], head["hash"]
    except (ValueError, LookupError, TypeError, AttributeError):
        seq, hash_ = 0, ""  # refused below with the same sentence
    if not isinstance(seq, int) or seq < 1 or not isinstance(hash_, str) or not HASH.fullmatch(hash_):
        raise ValueError("is no anchor: SEQ:HASH, a hash, or a JSON object with seq and hash")
    return Anchor(seq, hash_)
