"""The report of a storm of kills, as Markdown."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storm.kills import Outcome, Storm

MODES = {
    "lockstep": "In lockstep: nobody starts a point before everything earlier is ingested and learnt from",
    "free": "Free-running: nobody waits for the service",
}
COMPARED = {
    "lockstep": "with those of an undisturbed run (all data, every policy, the blocks that serve)",
    "free": "of the policy that serves with a serial fit of the stored decisions",
}


def details(storm: Storm) -> Iterator[str]:
    """Yield the lines of a storm: its kills, its plays, the poisoned task and its faults."""
    yield from _kills(storm)
    for outcome in storm.outcomes:
        yield from _outcome(outcome)
    job, poisoning = storm.poisoning.job, storm.poisoning
    yield from ("", "## A task that kills its worker each time", "")
    yield (
        f"Meanwhile the ingest of another study's window killed its worker {len(poisoning.deaths)} times."
        f" After {job.attempts} tries and {poisoning.seconds:.0f} s its job was {job.state} ({job.reason})"
        f" and its window {poisoning.window}. Between the first of these deaths and the last,"
        f" {poisoning.meanwhile} jobs of the free-running study were done."
    )
    if storm.wrong:
        yield from ("", "## Wrong", "", *(f"- {sentence}" for sentence in storm.wrong[:20]))


def _kills(storm: Storm) -> Iterator[str]:
    kills = [kill for outcome in storm.outcomes for kill in outcome.kills]
    yield from (
        "",
        "## Killed",
        "",
        "| process | times | back after, median | longest |",
        "|---|---|---|---|",
    )
    for kind, count in sorted(Counter(kill.kind for kill in kills).items()):
        seconds = [kill.seconds for kill in kills if kill.kind == kind and kill.seconds is not None]
        middle, longest = (f"{f(seconds):.1f} s" if seconds else "not seen" for f in (statistics.median, max))
        yield f"| {kind} | {count} | {middle} | {longest} |"
    yield f"| all | {len(kills)} | | |"


def _outcome(outcome: Outcome) -> Iterator[str]:
    yield from ("", f"## {MODES[outcome.mode]}", "")
    yield (
        f"{outcome.decisions} decisions in {outcome.seconds:.0f} s. {outcome.compared} values compared"
        f" {COMPARED[outcome.mode]}, to 1e-9: {'all equal' if not outcome.wrong else 'see below'}."
    )
    yield ""
    tries = outcome.call_results.total()
    yield from ("| what | number |", "|---|---|")
    yield f"| calls of the app, by tries | {tries} |"
    yield f"| of these answered | {tries - outcome.repeated.total()} |"
    yield from (
        f"| met by a try and repeated: {result} | {n} |" for result, n in sorted(outcome.repeated.items())
    )
    yield f"| calls to the app's back end | {outcome.back_end_calls} |"
    failed = sum(outcome.failed.values())
    yield f"| of these failed on purpose | {failed} ({failed / max(outcome.back_end_calls, 1):.0%}) |"
    yield from (f"| ... in this way: {kind} | {n} |" for kind, n in sorted(outcome.failed.items()))
    yield f"| of these answered late on purpose | {outcome.late} |"
    for kind, (jobs, claims) in outcome.tries.items():
        yield f"| {kind} jobs, and tries of them | {jobs}, {claims} |"
    yield f"| claims put back, their worker being dead | {outcome.put_back} |"
