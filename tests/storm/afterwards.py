"""The checks of the tables after a storm: everything that the service acknowledged is stored, once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from models.core.jobs import INGEST, OWN_FAULT
from rehearsal.play import Rehearsal
from tests.storm import stored
from tests.storm.comparison import differences
from tests.storm.stored import Row
from workers.core.claims import AWAY
from workers.core.sweep import DIED

FINAL = {"done", "failed"}
BY_A_KILL = {DIED, AWAY}  # reasons of jobs that failed because a process was killed


def wrong(database_url: str, study: str, play: Rehearsal) -> list[str]:
    """Return a sentence for everything that is lost, doubled, different or unfinished."""
    tables = {
        name: stored.read(database_url, query, study)
        for name, query in (
            ("decisions", stored.DECISIONS),
            ("windows", stored.WINDOWS),
            ("answers", stored.ANSWERS),
            ("jobs", stored.JOBS),
            ("discrepancies", stored.DISCREPANCIES),
        )
    }
    # the answers of the service and the surveys sent to it, by the keys of the tables
    acknowledged: dict[str, dict[str, Any]] = {"decisions": {}, "jobs": {}, "surveys": {}}
    for played in play.played:
        for name, values in acknowledged.items():
            for index, value in getattr(played, name).items():
                values[f"{played.person.enrolment.user_id} {index:04}"] = value
    faults = [f"{name}: {example}" for name, examples in play.ledger.examples.items() for example in examples]
    faults += _once("decision", tables["decisions"], acknowledged["decisions"])
    faults += _once("window", tables["windows"], acknowledged["jobs"])
    faults += _decisions(tables["decisions"], acknowledged["decisions"])
    faults += _windows(tables["windows"], acknowledged["jobs"])
    faults += _answers(tables["answers"], tables["windows"], acknowledged["surveys"])
    for job in tables["jobs"]:
        # an ingest may fail for the back end's faults, and any job for a killed process
        is_of_the_back_end = job["kind"] == INGEST and job["code"] not in {None, OWN_FAULT}
        may_fail = job["reason"] and (is_of_the_back_end or job["reason"] in BY_A_KILL)
        if job["state"] not in FINAL or (job["state"] == "failed" and not may_fail):
            faults.append(f"{job['kind']} job {job['id']} is {job['state']}, reason {job['reason']}")
    return faults + [f"discrepancy: {row}" for row in tables["discrepancies"]]


def _once(noun: str, rows: list[Row], acknowledged: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each key that is not both stored once and acknowledged."""
    counts = Counter(row["key"] for row in rows)
    for key in counts.keys() | acknowledged.keys():
        if counts[key] != 1 or key not in acknowledged:
            times = int(key in acknowledged)
            yield f"{noun} {key} is stored {counts[key]} times, acknowledged {times} times"


def _decisions(rows: list[Row], acknowledged: dict[str, Any]) -> Iterator[str]:
    """Yield the differences between stored decisions and the service's answers."""
    for row in rows:
        if row["key"] in acknowledged:
            decision = acknowledged[row["key"]]
            answer = {**asdict(decision), "state": list(decision.state or ()) or None}
            values = {name: row["id" if name == "rid" else name] for name in answer}
            yield from differences(values, answer, f"decision {row['key']}")


def _windows(rows: list[Row], job_ids: dict[str, int]) -> Iterator[str]:
    """Yield a sentence for each window with another job than acknowledged, or that did not come to an end."""
    for row in rows:
        if row["job_id"] != job_ids.get(row["key"]):
            yield f"window {row['key']} has job {row['job_id']}, not {job_ids.get(row['key'])}"
        is_ingested = (row["state"], row["job_state"]) == ("ingested", "done")
        failed_for_cause = (row["state"], row["job_state"]) == ("failed", "failed") and row["code"]
        if row["kind"] != "ended" or not (is_ingested or failed_for_cause):
            yield f"window {row['key']} is {row['kind']}, {row['state']}, its job {row['job_state']}"


def _answers(rows: list[Row], windows: list[Row], surveys: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each ingested window without one answer, and each difference to the surveys."""
    counts = Counter(row["key"] for row in rows)
    for window in windows:
        if window["state"] == "ingested" and counts[window["key"]] != 1:
            yield f"window {window['key']} has {counts[window['key']]} answers"
    for row in rows:
        survey = asdict(surveys[row["key"]])
        survey["cannabis_use"] = None if survey["cannabis_use"] is None else list(survey["cannabis_use"])
        yield from differences({name: row["item"][name] for name in survey}, survey, f"answers {row['key']}")
