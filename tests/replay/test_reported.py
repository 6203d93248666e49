"""The span that a window's data was asked for must follow from the protocol versions that were there."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from replay.reported import _query_starts

if TYPE_CHECKING:
    from replay.tables import Study

DECIDED = datetime(2026, 12, 1, 8, tzinfo=UTC)
HOURS = {1: 3.0, 2: 9.0, 3: 5.0}


def starts(ended_at: datetime, effective: dict[int, datetime], own: int = 1) -> list[float]:
    """Hours before the decision at which the query may begin."""
    protocols = {
        version: SimpleNamespace(schedule=SimpleNamespace(look_back_hours=hours))
        for version, hours in HOURS.items()
    }
    study = cast("Study", SimpleNamespace(effective=effective, protocols=protocols))
    decision: dict[str, Any] = {"protocol_id": own, "act_gen_timestamp": DECIDED}
    begins = _query_starts(study, decision, {"ended_at": ended_at})
    return [(DECIDED - begin) / timedelta(hours=1) for begin in begins]


def test_a_version_of_the_decision_comes_first_and_later_ones_only_until_the_end() -> None:
    day = timedelta(days=1)
    effective = {1: DECIDED - day, 2: DECIDED + timedelta(hours=1), 3: DECIDED + day}
    assert starts(DECIDED + timedelta(hours=2), effective) == [3.0, 9.0]
    assert starts(DECIDED + timedelta(minutes=30), effective) == [3.0]


def test_a_version_that_was_replaced_before_the_decision_is_none() -> None:
    day = timedelta(days=1)
    effective = {1: DECIDED - 2 * day, 2: DECIDED - day, 3: DECIDED + day}
    assert starts(DECIDED + timedelta(hours=2), effective, own=2) == [9.0]
