"""What happened in one storm of kills, as Markdown."""

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
    """The lines of one storm."""
    yield from _kills(storm)
    for outcome in storm.outcomes:
        yield from _outcome(outcome)
    yield from _poison(storm)
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
        seen = [kill.seconds for kill in kills if kill.kind == kind and kill.seconds is not None]
        middle, longest = (f"{f(seen):.1f} s" if seen else "not seen" for f in (statistics.median, max))
        yield f"| {kind} | {count} | {middle} | {longest} |"
    yield f"| all | {len(kills)} | | |"


def _outcome(outcome: Outcome) -> Iterator[str]:
    yield from ("", f"## {MODES[outcome.mode]}", "")
    yield (
        f"{outcome.decisions} decisions in {outcome.seconds:.0f} s. {outcome.compared} values compared"
        f" {COMPARED[outcome.mode]}, to 1e-9: {'all equal' if not outcome.wrong else 'see below'}."
    )
    yield ""
    answered = sum(count for told, count in outcome.met.items() if told.startswith("HTTP 2"))
    yield from ("| what | number |", "|---|---|")
    yield f"| calls of the app, by tries | {sum(outcome.met.values())} |"
    yield f"| of these answered | {answered} |"
    yield from (
        f"| met by a try and repeated: {told} | {n} |" for told, n in sorted(outcome.repeated.items())
    )
    yield f"| calls to the app's back end | {outcome.asked} |"
    failed = sum(outcome.failed.values())
    yield f"| of these failed on purpose | {failed} ({failed / max(outcome.asked, 1):.0%}) |"
    yield from (f"| ... in this way: {kind} | {n} |" for kind, n in sorted(outcome.failed.items()))
    yield f"| of these answered late on purpose | {outcome.late} |"
    for kind, (jobs, tries) in outcome.tries.items():
        yield f"| {kind} jobs, and tries of them | {jobs}, {tries} |"
    yield f"| claims put back, their worker being dead | {outcome.put_back} |"


def _poison(storm: Storm) -> Iterator[str]:
    job, poisoning = storm.poisoning.job, storm.poisoning
    yield from ("", "## A task that kills its worker each time", "")
    yield (
        f"Meanwhile the ingest of another study's window killed its worker {len(poisoning.deaths)} times."
        f" After {job.attempts} tries and {poisoning.seconds:.0f} s its job was {job.state} ({job.reason})"
        f" and its window {poisoning.window}. Between the first of these deaths and the last,"
        f" {poisoning.meanwhile} jobs of the free-running study were done."
    )
