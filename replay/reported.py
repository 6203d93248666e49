"""Reports again: outcomes that answers make, disagreements, times, windows, and the long table."""

from datetime import datetime, timedelta, timezone
from typing import Any

from algorithm.trial import discrepancies
from algorithm.trial.decision_time import TIME_OF_DAY, UTC_OFFSET, moment
from algorithm.trial.protocol import Protocol
from replay.decisions import DAMAGE, name
from replay.findings import Report
from replay.format import long_table as trial
from replay.format.long_table import Row
from replay.known_when import CLOCKS
from replay.tables import Study

COMPARED = {
    discrepancies.INDEX,
    discrepancies.ACT_PROB,
    discrepancies.TIME,
    *(code for code, _ in discrepancies.EXACT.values()),
}
"""The codes of discrepancies between a report and the decision."""


def check(study: Study, report: Report) -> None:
    """Check the answers, discrepancies and times of every decision, and all windows."""
    for decision in study.checked:
        protocol = study.protocol(decision)
        if protocol is None:
            continue  # `integrity` reports it
        _answers(study, decision, protocol, report)
        _moment(study, decision, protocol, report)
    for window in study.tables["windows"]:
        person, index = window["participant_id"], window["decision_index"]
        where = f"window {window['id']} (participant {person}, point {index})"
        decision_there = study.points.get((person, index))
        report.compare("window", where, window["kind"] == "missed", decision_there is None)
        if decision_there is None:
            continue
        begins = _query_starts(study, decision_there, window)
        begin = window["query_start"] if window["query_start"] in begins else next(iter(begins), None)
        stored = [window["query_start"], window["query_end"]]
        report.compare("window", f"{where}, query", stored, [begin, window["ended_at"]])
        ingested, failed = window["state"] == "ingested", window["state"] == "failed"
        report.compare("window", f"{where}, ingested_at", window["ingested_at"] is not None, ingested)
        report.compare("window", f"{where}, code", window["code"] is not None, failed)
    # the points of a participant that are over are those with a window
    for participant in study.tables["participants"]:
        indices = sorted(index for person, index in study.windows if person == participant["id"])
        expected = list(range(1, participant["decision_index"] + 1))
        report.compare("window", f"participant {participant['id']}, points over", expected, indices)
    rids = [row["decision_id"] for row in (*study.tables["answers"], *study.tables["discrepancies"])]
    strangers = [rid for rid in rids if rid is not None and rid not in study.decisions]
    report.compare("reference", "answers and discrepancies of decisions that do not exist", strangers, [])


def _query_starts(study: Study, decision: Row, window: Row) -> list[datetime]:
    """Return the times at which the span of a window's query may begin: first that of the decision's version.

    Earlier releases looked back as the version in force at the window's end had it, so their exports may have
    that of any version which came in force in between.
    """
    own = decision["protocol_id"]
    between = [
        version
        for version, effective_at in study.effective.items()
        if decision["act_gen_timestamp"] - CLOCKS <= effective_at <= window["ended_at"] + CLOCKS
    ]
    protocols = [study.protocols.get(version) for version in (own, *between)]
    return [
        decision["act_gen_timestamp"] - timedelta(hours=protocol.schedule.look_back_hours)
        for protocol in protocols
        if protocol
    ]


def _answers(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    """Check the versions of a decision's answers, and the discrepancies that they cause."""
    zone, lag = study.facts["ema_timezone"], protocol.schedule.outcome_lag
    differences: set[tuple[Any, ...]] = set()
    # versions are numbered from 1 without a gap
    for number, answer in enumerate(study.answers.get(decision["id"], []), 1):
        where, item = f"{name(decision)}, version {answer['version']}", answer["item"]
        report.compare("answers", where, answer["version"], number)
        reward = None  # a version that does not count changes no reward
        try:
            if answer["source"] == "ema":
                if discrepancies.tells_outcome(item, decision, zone, lag):
                    reward = protocol.design.reward(item, protocol.state)
                differences |= set(discrepancies.differences(item, decision, zone))
        except DAMAGE as error:
            problem = f"{type(error).__name__}: what was reported is no item"
            report.diverge("answers", where, "answers", problem)
            continue
        stored = [answer["reward"], item.get("rid", decision["id"])]
        report.compare("answers", f"{where}, reward and rid", stored, [reward, decision["id"]])
    rows = study.discrepancies.get(decision["id"], [])
    people = {row["participant_id"] for row in rows}
    report.compare("discrepancy", f"{name(decision)}, whose", people <= {decision["participant_id"]}, True)
    stored = [_contents(row) for row in rows if row["code"] in COMPARED]
    report.compare("discrepancy", name(decision), sorted(stored), sorted(differences))


def _contents(discrepancy: Row) -> tuple[Any, ...]:
    return discrepancy["field"], discrepancy["code"], discrepancy["issued"], discrepancy["reported"]


def _moment(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    """Check the time of day, and the disagreements with the time that the app reported."""
    person = study.participants.get(decision["participant_id"])
    zone = study.zone(decision["participant_id"], decision["decision_index"])
    if person is None or zone is None:
        report.diverge("time", name(decision), "a decision", "no time zone of its participant")
        return
    app_time = None
    # without a time of the app, the decision point's time is the instant of the draw
    if decision["decision_time"] != decision["act_gen_timestamp"]:
        offset = timedelta(minutes=decision["utc_offset_minutes"])
        app_time = decision["decision_time"].astimezone(timezone(offset))
    expected = moment(
        app_time,
        decision["act_gen_timestamp"],
        zone,
        decision["decision_index"],
        protocol.schedule.points_per_day,
        person["morning_notification_time_start"],
        person["evening_notification_time_start"],
    )
    rows = study.discrepancies.get(decision["id"], [])
    disagreements = sorted(_contents(row) for row in rows if row["code"] in {TIME_OF_DAY, UTC_OFFSET})
    report.compare(
        "time",
        name(decision),
        [decision["evening"], decision["utc_offset_minutes"], disagreements],
        [expected.evening, expected.utc_offset_minutes, sorted(map(tuple, expected.disagreements))],
    )


def long_table(study: Study, stored: list[Row], report: Report) -> None:
    """Check the long table, row by row."""
    protocol = study.in_force()
    if protocol is None:
        return
    raw = trial.Raw(**{table: study.tables[table] for table in trial.Raw.__dataclass_fields__})
    rows = list(trial.rows(raw, trial.Context(protocol, study.as_of)))
    report.compare("trial table", "rows", len(stored), len(rows))
    for stored_row, row in zip(stored, rows, strict=False):
        point = f"participant {stored_row['participant_id']}, point {stored_row['decision_index']}"
        for column, value in row.items():
            where = f"{point}, rid {stored_row['rid']}, {column}"
            report.compare("trial table", where, stored_row.get(column), value)
