"""Learning rows again: every pair of a decision and its outcome, once it was known, and no other."""

from collections.abc import Iterator
from itertools import groupby

from replay.decisions import name
from replay.findings import Report
from replay.format.long_table import Row
from replay.known_when import CLOCKS, LONGEST_TRANSACTION, possible_rewards
from replay.tables import Study

KIND = "learning row"


def check(study: Study, report: Report) -> None:
    """Check that each row is the pair of a decision and an outcome, as known when the row was collected."""
    last_of = dict[int, Row]()
    for row in study.tables["learning_rows"]:
        where, decision = f"row_seq {row['row_seq']}", study.decisions.get(row["decision_id"])
        before = last_of.get(row["decision_id"])
        last_of[row["decision_id"]] = row
        if decision is None:
            report.diverge(KIND, where, row["decision_id"], "no such decision")
            continue
        place = [decision["participant_id"], decision["decision_index"], True]
        stored = [row["participant_id"], row["decision_index"], is_learnt_from(decision)]
        if not report.compare(KIND, f"{where}, {name(decision)}", stored, place):
            continue
        reporting = study.points.get((row["participant_id"], row["decision_index"] + _lag(study, row)))
        if reporting is None:
            missing = "no outcome: the point that reports it does not exist"
            report.diverge(KIND, where, row["outcome"], missing)
            continue
        rewards = possible_rewards(study, reporting, row["created_at"])
        if row["outcome"] not in rewards:
            report.diverge(KIND, f"{where}, outcome", row["outcome"], rewards[0])
        elif before is not None and before["outcome"] == row["outcome"]:
            report.diverge(KIND, f"{where}, a correction", row["outcome"], "the same as before")
        else:
            report.held[KIND] += 1


def complete(study: Study, report: Report) -> None:
    """Check what only holds of a whole study: no row comes after a removal, the rows of a collection are in
    the order of their outcomes, and every pair that the last collection must have seen has its row."""
    rows, removed = study.tables["learning_rows"], study.removed
    of_removed = [row for row in rows if row["participant_id"] in removed]
    for row in [row for row in of_removed if row["row_seq"] >= removed[row["participant_id"]]]:
        expected = f"none from {removed[row['participant_id']]} on: removed"
        report.diverge(KIND, f"row_seq {row['row_seq']}", row["row_seq"], expected)
    # the rows that one transaction collected have its beginning as `created_at`
    for _, group in groupby(rows, key=lambda row: row["created_at"]):
        collection = list(group)
        places = [(row["participant_id"], row["decision_index"] + _lag(study, row)) for row in collection]
        outcomes = [study.points.get(place, {"id": 0})["id"] for place in places]
        order = [(rid, row["decision_id"]) for rid, row in zip(outcomes, collection, strict=True)]
        where = f"the order of row_seq {collection[0]['row_seq']} and on"
        report.compare(KIND, where, order, sorted(order))
    if not rows:
        return
    collected_at = rows[-1]["created_at"]
    last_of = {row["decision_id"]: row["outcome"] for row in rows}
    for decision, reporting in _pairs(study):
        if reporting["act_gen_timestamp"] > collected_at - LONGEST_TRANSACTION - CLOCKS:
            continue  # perhaps the last collection did not see it
        rewards = possible_rewards(study, reporting, collected_at)
        stored = last_of.get(decision["id"])
        if stored not in rewards:
            report.diverge(KIND, f"{name(decision)}, the last outcome collected", stored, rewards[0])


def is_learnt_from(decision: Row) -> bool:
    """Return True if a decision can be a learning row: it was randomised in a state that was known."""
    return decision["state"] is not None and decision["available"] and decision["fallback_level"] != "F4"


def _lag(study: Study, row: Row) -> int:
    """Return the points from an action to its outcome's report, by the protocol of a row's decision."""
    decision = study.decisions.get(row["decision_id"])
    protocol = None if decision is None else study.protocol(decision)
    return 0 if protocol is None else protocol.schedule.outcome_lag


def _pairs(study: Study) -> Iterator[tuple[Row, Row]]:
    """Yield the decisions to learn from and the points that report their outcomes, under the features in
    force: the last outcomes under earlier features came too late for their last collection."""
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
