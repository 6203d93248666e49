"""Learning rows again: every pair of a decision and its outcome, once it was known, and no other."""

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from replay.decisions import name
from replay.findings import Report
from replay.format.long_table import Row
from replay.known_when import CLOCKS, LONGEST_TRANSACTION, possible_rewards
from replay.tables import Study

KIND = "learning row"


def check(study: Study, report: Report) -> None:
    """Each row is a pair as known when it came."""
    last = dict[int, Row]()
    for row in study.tables["learning_rows"]:
        _row(study, row, _lag(study, row), last.get(row["decision_id"]), report)
        last[row["decision_id"]] = row


def complete(study: Study, report: Report) -> None:
    """Of a whole study: within one collection the order is the outcomes', and every pair that the last
    collection must have seen has its row."""
    _removed(study, report)
    latest = None
    for collected, batch in groupby(study.tables["learning_rows"], key=lambda row: row["created_at"]):
        found = list(batch)
        order = [_order(study, row, _lag(study, row)) for row in found]
        report.compare(KIND, f"the order of row_seq {found[0]['row_seq']} and on", order, sorted(order))
        latest = collected
    if latest is not None:
        last = {row["decision_id"]: row for row in study.tables["learning_rows"]}
        _complete(study, last, latest, report)


def _removed(study: Study, report: Report) -> None:
    """Nobody who was removed from learning has a later row."""
    for row in study.tables["learning_rows"]:
        since = study.removed.get(row["participant_id"])
        if since is not None and row["row_seq"] >= since:
            report.diverge(
                KIND, f"row_seq {row['row_seq']}", row["row_seq"], f"none from {since} on: removed"
            )


def is_learnt_from(decision: Row) -> bool:
    """Whether a decision can be a learning row: randomised in a state that was known."""
    return decision["state"] is not None and decision["available"] and decision["fallback_level"] != "F4"


def _lag(study: Study, row: Row) -> int:
    """How many points after its action a decision's outcome is reported, by its own protocol."""
    decision = study.decisions.get(row["decision_id"])
    protocol = None if decision is None else study.protocol(decision)
    return 0 if protocol is None else protocol.schedule.outcome_lag


def _order(study: Study, row: Row, lag: int) -> tuple[int, int]:
    outcome = study.points.get((row["participant_id"], row["decision_index"] + lag), {"id": 0})
    return outcome["id"], row["decision_id"]


def _row(study: Study, row: Row, lag: int, before: Row | None, report: Report) -> None:
    where = f"row_seq {row['row_seq']}"
    decision = study.decisions.get(row["decision_id"])
    if decision is None:
        report.diverge(KIND, where, row["decision_id"], "no such decision")
        return
    place = [decision["participant_id"], decision["decision_index"], True]
    stored = [row["participant_id"], row["decision_index"], is_learnt_from(decision)]
    if not report.compare(KIND, f"{where}, {name(decision)}", stored, place):
        return
    reporting = study.points.get((row["participant_id"], row["decision_index"] + lag))
    if reporting is None:
        report.diverge(KIND, where, row["outcome"], "no outcome: the point that reports it does not exist")
        return
    known = possible_rewards(study, reporting, row["created_at"])
    if row["outcome"] not in known:
        report.diverge(KIND, f"{where}, outcome", row["outcome"], known[0])
    elif before is not None and before["outcome"] == row["outcome"]:
        report.diverge(KIND, f"{where}, a correction", row["outcome"], "the same as before")
    else:
        report.held[KIND] += 1


def _complete(study: Study, last: dict[int, Row], collected: datetime, report: Report) -> None:
    for decision, reporting in _pairs(study):
        if reporting["act_gen_timestamp"] > collected - LONGEST_TRANSACTION - CLOCKS:
            continue  # perhaps the last collection did not see it
        known = possible_rewards(study, reporting, collected)
        row = last.get(decision["id"])
        stored = None if row is None else row["outcome"]
        if stored not in known:
            report.diverge(KIND, f"{name(decision)}, the last outcome collected", stored, known[0])


def _pairs(study: Study) -> Iterator[tuple[Row, Row]]:
    """Those of the features in force: the last ones of others came too late for their last collection."""
    protocol = study.in_force()
    if protocol is None:
        return
    version, lag = protocol.design.feature_version, protocol.schedule.outcome_lag
    for (person, index), decision in study.points.items():
        if decision["feature_version"] != version or person in study.removed:
            continue
        reporting = study.points.get((person, index + lag))
        if reporting is not None and is_learnt_from(decision):
            yield decision, reporting
