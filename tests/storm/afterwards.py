"""What must hold of the tables once everything is quiet: each acknowledged thing is there, once."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from models.core.jobs import INGEST, OWN_FAULT
from rehearsal.checks import Played
from rehearsal.play import Rehearsal
from tests.storm import stored
from tests.storm.comparison import differences
from tests.storm.stored import Row
from workers.core.claims import AWAY
from workers.core.sweep import DIED

FINAL = {"done", "failed"}
BY_A_KILL = {DIED, AWAY}


def wrong(database_url: str, study: str, play: Rehearsal) -> list[str]:
    """Everything that is lost, doubled, different or unfinished, one sentence each."""
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
    told = _told(play.played)
    found = [f"{name}: {example}" for name, examples in play.ledger.examples.items() for example in examples]
    found += _once("decision", tables["decisions"], told["decisions"])
    found += _once("window", tables["windows"], told["jobs"])
    found += _decisions(tables["decisions"], told["decisions"])
    found += _windows(tables["windows"], told["jobs"])
    found += _answers(tables["answers"], tables["windows"], told["surveys"])
    found += _jobs(tables["jobs"])
    return found + [f"discrepancy: {row}" for row in tables["discrepancies"]]


def _told(everybody: Iterable[Played]) -> dict[str, dict[str, Any]]:
    """What the service acknowledged and what it was told, by the keys of the tables."""
    found: dict[str, dict[str, Any]] = {"decisions": {}, "jobs": {}, "surveys": {}}
    for played in everybody:
        for name, own in found.items():
            for index, value in getattr(played, name).items():
                own[f"{played.person.enrolment.user_id} {index:04}"] = value
    return found


def _once(what: str, rows: list[Row], told: dict[str, Any]) -> Iterator[str]:
    counts = Counter(row["key"] for row in rows)
    for key in counts.keys() | told.keys():
        if counts[key] != 1 or key not in told:
            yield f"{what} {key} is stored {counts[key]} times, acknowledged {int(key in told)} times"


def _decisions(rows: list[Row], told: dict[str, Any]) -> Iterator[str]:
    for row in rows:
        if row["key"] in told:
            answer = {**asdict(told[row["key"]]), "state": list(told[row["key"]].state or ()) or None}
            kept = {name: row["id" if name == "rid" else name] for name in answer}
            yield from differences(kept, answer, f"decision {row['key']}")


def _windows(rows: list[Row], told: dict[str, int]) -> Iterator[str]:
    for row in rows:
        if row["job_id"] != told.get(row["key"]):
            yield f"window {row['key']} has job {row['job_id']}, not {told.get(row['key'])}"
        is_ingested = (row["state"], row["job_state"]) == ("ingested", "done")
        failed_for_cause = (row["state"], row["job_state"]) == ("failed", "failed") and row["code"]
        if row["kind"] != "ended" or not (is_ingested or failed_for_cause):
            yield f"window {row['key']} is {row['kind']}, {row['state']}, its job {row['job_state']}"


def _answers(rows: list[Row], windows: list[Row], told: dict[str, Any]) -> Iterator[str]:
    counts = Counter(row["key"] for row in rows)
    for window in windows:
        if window["state"] == "ingested" and counts[window["key"]] != 1:
            yield f"window {window['key']} has {counts[window['key']]} answers"
    for row in rows:
        survey = asdict(told[row["key"]])
        survey["cannabis_use"] = None if survey["cannabis_use"] is None else list(survey["cannabis_use"])
        yield from differences({name: row["item"][name] for name in survey}, survey, f"answers {row['key']}")


def _jobs(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        if row["state"] not in FINAL or (row["state"] == "failed" and not _may_fail(row)):
            yield f"{row['kind']} job {row['id']} is {row['state']}, reason {row['reason']}"


def _may_fail(job: Row) -> bool:
    """An ingest for what the back end did, and any job for what a killed process does to it."""
    is_of_the_back_end = job["kind"] == INGEST and job["code"] not in {None, OWN_FAULT}
    return bool(job["reason"]) and (is_of_the_back_end or job["reason"] in BY_A_KILL)
