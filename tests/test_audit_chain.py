"""The audit's chain without a database: every kind of tampering is found, and the row is named."""

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import audit_chain
from audit_chain import Anchor

KEY = hashlib.sha256(b"a study's key").hexdigest()
Row = dict[str, Any]


def link(row: Row, before: str) -> Row:
    """The row after another one, with its own hash."""
    linked = row | {"prev_hash": before}
    return linked | {"hash": audit_chain.digest(linked)}


def made(length: int = 6) -> list[Row]:
    rows: list[Row] = []
    for seq in range(1, length + 1):
        row = {
            "seq": seq,
            "created_at": datetime(2026, 11, 21, 12, seq, tzinfo=UTC),
            "client_id": None if seq == 1 else 7,
            "role": "admin",
            "participant_id": seq % 2 or None,
            "act": "pause",
            "reason": f"reason ü {seq}",
            "before": {"paused": False},
            "after": {"paused": True, "outcome": 2.0},
        }
        rows.append(link(row, rows[-1]["hash"] if rows else KEY))
    return rows


def rewritten(rows: list[Row], start: int) -> list[Row]:
    """The rows with all hashes from row `start` on computed anew."""
    kept = rows[: start - 1]
    for row in rows[start - 1 :]:
        kept.append(link(row, kept[-1]["hash"] if kept else KEY))
    return kept


def altered(rows: list[Row]) -> list[Row]:
    rows[3]["reason"] = "another one"
    return rows


def altered_with_its_own_hash(rows: list[Row]) -> list[Row]:
    rows[3] = link(rows[3] | {"reason": "another one"}, rows[3]["prev_hash"])
    return rows


def without_one(rows: list[Row]) -> list[Row]:
    return rows[:2] + rows[3:]


def without_two(rows: list[Row]) -> list[Row]:
    return rows[:2] + rows[4:]


def without_the_first(rows: list[Row]) -> list[Row]:
    return rows[1:]


def moved_up(rows: list[Row]) -> list[Row]:
    """A row is taken out and the others close the gap, with hashes of their own but not their links."""
    for row in rows[3:]:
        row["seq"] -= 1
        row["hash"] = audit_chain.digest(row)
    return rows[:2] + rows[3:]


def exchanged(rows: list[Row]) -> list[Row]:
    rows[2]["seq"], rows[3]["seq"] = 4, 3
    return rows


def exchanged_with_their_own_hashes(rows: list[Row]) -> list[Row]:
    for row in exchanged(rows):
        row["hash"] = audit_chain.digest(row)
    return rows


def twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[2]]


def of_another_study(rows: list[Row]) -> list[Row]:
    rows[0] = link(rows[0], "0" * 64)
    return rows


def nothing(rows: list[Row]) -> list[Row]:
    return rows[:0]


FORGERIES: dict[Callable[[list[Row]], list[Row]], str] = {
    altered: "row 4 was altered",
    altered_with_its_own_hash: "row 5 does not follow row 4",
    without_one: "row 3 is missing",
    without_two: "rows 3 to 4 are missing",
    without_the_first: "row 1 is missing",
    moved_up: "row 3 does not follow row 2",
    exchanged: "row 3 was altered",
    exchanged_with_their_own_hashes: "row 3 does not follow row 2",
    twice: "row 3 stands twice",
    of_another_study: "row 1 does not follow the study's key",
    nothing: "row 1 is missing: the chain is empty",
}


def test_an_honest_chain_is_whole() -> None:
    rows = made()
    assert audit_chain.check(rows, KEY) == []
    for row in rows:
        assert audit_chain.check(rows, KEY, Anchor(row["seq"], row["hash"])) == []
        assert audit_chain.check(rows, KEY, Anchor(None, row["hash"])) == []


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_tampering_is_found_and_named(forge: Callable[[list[Row]], list[Row]]) -> None:
    found = audit_chain.check(forge(copy.deepcopy(made())), KEY)
    assert any(fault.startswith(FORGERIES[forge]) for fault in found), found


@pytest.mark.parametrize("name", audit_chain.FIELDS)
def test_every_field_is_covered(name: str) -> None:
    rows = made()
    other = {"seq": 40, "created_at": rows[0]["created_at"], "before": None, "after": {}}
    rows[3][name] = other.get(name, 99 if name in {"client_id", "participant_id"} else "x")
    assert audit_chain.check(rows, KEY)


def test_a_cut_tail_and_a_rewritten_chain_need_an_anchor() -> None:
    rows = made()
    head = Anchor(6, rows[-1]["hash"])
    cut = rows[:4]
    assert audit_chain.check(cut, KEY) == []
    assert audit_chain.check(cut, KEY, head) == ["row 6, the anchor's, is missing: the chain ends at row 4"]
    anew = rewritten(altered(copy.deepcopy(rows)), 4)
    assert audit_chain.check(anew, KEY) == []
    assert audit_chain.check(anew, KEY, head) == [
        "row 6 has not the anchor's hash: the chain was written anew"
    ]
    for forged in (cut, anew):
        (fault,) = audit_chain.check(forged, KEY, head._replace(seq=None))
        assert fault.startswith("no row has the anchor's hash")


def test_the_bytes_are_as_the_documents_say() -> None:
    (row,) = made(1)
    told = (
        '{"act":"pause","after":{"outcome":2,"paused":true},"before":{"paused":false},"client_id":null,'
        '"created_at":"2026-11-21T12:01:00.000000+00:00","participant_id":1,'
        f'"prev_hash":"{KEY}","reason":"reason ü 1","role":"admin","seq":1}}'
    )
    assert audit_chain.canonical(row) == told.encode()
    assert row["hash"] == hashlib.sha256(told.encode()).hexdigest()
    abroad = row["created_at"].astimezone(timezone(timedelta(hours=5)))
    assert audit_chain.digest(row | {"created_at": abroad}) == row["hash"]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_numbers_survive_the_way_through_a_database(value: float) -> None:
    row = made(1)[0]
    (whole,) = [int(value)] if value.is_integer() else [value]
    assert audit_chain.digest(row | {"after": {"x": value}}) == audit_chain.digest(
        row | {"after": {"x": whole}}
    )
    assert audit_chain.digest(row | {"after": {"x": json.loads(repr(value))}}) == audit_chain.digest(
        row | {"after": {"x": value}}
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e16, 2**53])
def test_what_a_database_would_change_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot stand in the audit"):
        audit_chain.digest(made(1)[0] | {"after": {"x": value}})


HASH = "ab" * 32


@pytest.mark.parametrize(
    ("text", "anchor"),
    [
        (f"12:{HASH}\n", Anchor(12, HASH)),
        (HASH, Anchor(None, HASH)),
        (f'{{"study": "x", "seq": 3, "hash": "{HASH}"}}', Anchor(3, HASH)),
        (f'{{"kind": "audit_head", "detail": {{"seq": 3, "hash": "{HASH}"}}}}', Anchor(3, HASH)),
    ],
)
def test_anchors_are_read_as_they_are_published(text: str, anchor: Anchor) -> None:
    assert audit_chain.read_anchor(text) == anchor


@pytest.mark.parametrize(
    "text", ["", "12", "x" * 64, '{"seq": 3}', '{"seq": 0, "hash": "ab"}', "[1]", "3:ab"]
)
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no anchor"):
        audit_chain.read_anchor(text)
