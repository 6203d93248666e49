"""What was reported: outcomes that answers make, disagreements, times, windows, and the long table."""

from datetime import timedelta, timezone
from typing import Any

from algorithm.trial import discrepancies
from algorithm.trial.decision_time import TIME_OF_DAY, UTC_OFFSET, moment
from algorithm.trial.protocol import Protocol
from replay.decisions import DAMAGE, name
from replay.findings import Report
from replay.format import long_table as trial
from replay.format.long_table import Row
from replay.tables import Study

COMPARED = {
    discrepancies.INDEX,
    discrepancies.ACT_PROB,
    discrepancies.TIME,
    *(code for code, _ in discrepancies.EXACT.values()),
}


def check(study: Study, report: Report) -> None:
    """Answers, discrepancies, times and windows of every decision."""
    for decision in study.checked:
        protocol = study.protocol(decision)
        if protocol is None:
            continue
        _answers(study, decision, protocol, report)
        _moment(study, decision, protocol, report)
    for window in study.tables["windows"]:
        _window(study, window, report)
    for participant in study.tables["participants"]:
        _closed(study, participant, report)
    known = {None, *study.decisions}
    strangers = [row["decision_id"] for row in study.tables["answers"] if row["decision_id"] not in known]
    strangers += [
        row["decision_id"] for row in study.tables["discrepancies"] if row["decision_id"] not in known
    ]
    report.compare("reference", "answers and discrepancies of decisions that do not exist", strangers, [])


def _answers(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    versions, zone = study.answers.get(decision["id"], []), study.facts["ema_timezone"]
    found: set[tuple[Any, ...]] = set()
    for at, answer in enumerate(versions, 1):
        where = f"{name(decision)}, version {answer['version']}"
        report.compare("answers", where, answer["version"], at)
        try:
            expected = _outcome(answer, decision, protocol, zone)
            if answer["source"] == "ema":
                found |= set(discrepancies.differences(answer["item"], decision, zone))
        except DAMAGE as error:
            report.diverge(
                "answers", where, "answers", f"{type(error).__name__}: what was reported is no item"
            )
            continue
        stored = [answer["reward"], answer["item"].get("rid", decision["id"])]
        report.compare("answers", f"{where}, reward and rid", stored, [expected, decision["id"]])
    told = study.discrepancies.get(decision["id"], [])
    people = {row["participant_id"] for row in told}
    report.compare("discrepancy", f"{name(decision)}, whose", people <= {decision["participant_id"]}, True)
    stored = [_told(row) for row in told if row["code"] in COMPARED]
    report.compare("discrepancy", name(decision), sorted(stored), sorted(found))


def _outcome(answer: Row, decision: Row, protocol: Protocol, zone: str) -> float | None:
    """What a version makes of the outcome, None where it changes nothing."""
    lag = protocol.schedule.outcome_lag
    if answer["source"] != "ema" or not discrepancies.tells_outcome(answer["item"], decision, zone, lag):
        return None
    return protocol.design.reward(answer["item"], protocol.state)


def _told(row: Row) -> tuple[Any, ...]:
    return row["field"], row["code"], row["issued"], row["reported"]


def _moment(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    """The time of day, and what the app's time disagrees with. An app that tells no time decides now."""
    person = study.participants.get(decision["participant_id"])
    zone = study.zone(decision["participant_id"], decision["decision_index"])
    if person is None or zone is None:
        report.diverge("time", name(decision), "a decision", "no time zone of its participant")
        return
    offset = timedelta(minutes=decision["utc_offset_minutes"])
    told = None
    if decision["decision_time"] != decision["act_gen_timestamp"]:
        told = decision["decision_time"].astimezone(timezone(offset))
    found = moment(
        told,
        decision["act_gen_timestamp"],
        zone,
        decision["decision_index"],
        protocol.schedule.points_per_day,
        person["morning_notification_time_start"],
        person["evening_notification_time_start"],
    )
    stored = [decision["evening"], decision["utc_offset_minutes"], _disagreements(study, decision)]
    expected = [found.evening, found.utc_offset_minutes, sorted(map(tuple, found.disagreements))]
    report.compare("time", name(decision), stored, expected)


def _disagreements(study: Study, decision: Row) -> list[tuple[Any, ...]]:
    told = study.discrepancies.get(decision["id"], [])
    return sorted(_told(row) for row in told if row["code"] in {TIME_OF_DAY, UTC_OFFSET})


def _window(study: Study, window: Row, report: Report) -> None:
    key = window["participant_id"], window["decision_index"]
    where = f"window {window['id']} (participant {key[0]}, point {key[1]})"
    decision = study.points.get(key)
    report.compare("window", where, window["kind"] == "missed", decision is None)
    if decision is None:
        return
    hours = {loaded.schedule.look_back_hours for loaded in study.protocols.values() if loaded}
    begins = [decision["act_gen_timestamp"] - timedelta(hours=back) for back in sorted(hours)]
    begin = next((one for one in begins if one == window["query_start"]), begins[0] if begins else None)
    stored = [window["query_start"], window["query_end"]]
    report.compare("window", f"{where}, query", stored, [begin, window["ended_at"]])
    settled = window["state"] == "ingested"
    report.compare("window", f"{where}, ingested_at", window["ingested_at"] is not None, settled)
    failed = window["state"] == "failed"
    report.compare("window", f"{where}, code", window["code"] is not None, failed)


def _closed(study: Study, participant: Row, report: Report) -> None:
    """The points that are over are those with a window."""
    over = sorted(index for person, index in study.windows if person == participant["id"])
    count = participant["decision_index"]
    report.compare("window", f"participant {participant['id']}, points over", list(range(1, count + 1)), over)


def long_table(study: Study, stored: list[Row], report: Report) -> None:
    """The long table, row by row."""
    protocol = study.in_force()
    if protocol is None:
        return
    raw = trial.Raw(**{table: study.tables[table] for table in trial.Raw.__dataclass_fields__})
    found = list(trial.rows(raw, trial.Context(protocol, study.as_of)))
    report.compare("trial table", "rows", len(stored), len(found))
    for one, other in zip(stored, found, strict=False):
        where = f"participant {one['participant_id']}, point {one['decision_index']}, rid {one['rid']}"
        for column in other:
            report.compare("trial table", f"{where}, {column}", one.get(column), other[column])
