"""The report of several storms: a page with a line for each run and the details of the last."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.storm import kills_report
from tests.storm.duplicates import Played
from tests.storm.kills import Storm

DUPLICATES = """\
Threads post calls of /register, /actions and /end_decision_window, full of duplicates, some with other
answers, some given up before their answer and repeated, while nothing is away. Every call of a decision point
must get its one decision, each correction must be told to all who sent it and stand in the audit once, and
none may be a 503. A 404 or 409 is a call that came before the one it rests on; it is repeated.
"""
KILLS = """\
Trials of {plan.participants} participants with {plan.points} decision points each. The processes are killed
(SIGKILL) in random order, at other moments in each run, and the app's back end fails a third of its calls.
What the app was told must be stored once, the data must be those of an undisturbed run, and the policy that
of a serial fit, to 1e-9.
"""


class Run(NamedTuple):
    """Both storms with the same seed, None where one was left out."""

    seed: int
    duplicates: Played | None
    kills: Storm | None

    @property
    def wrong(self) -> list[str]:
        """A sentence for each fault of both storms."""
        return [sentence for half in (self.duplicates, self.kills) if half for sentence in half.wrong]


def page(runs: Sequence[Run]) -> str:
    """Return the whole page as Markdown."""
    *before, last = (str(run.seed) for run in runs)
    seeds = f"seeds {', '.join(before)} and {last}" if before else f"seed {last}"
    wrong = [f"seed {run.seed}: {sentence}" for run in runs for sentence in run.wrong]
    verdict = f"{len(wrong)} things wrong" if wrong else "nothing wrong"
    lines = ["# The service under fire", ""]
    lines.append(f"`make storm` against real processes, with {seeds}, found {verdict}.")
    lines += ["", *(f"- {sentence}" for sentence in wrong[:20])] if wrong else []
    lines += _duplicates([(run.seed, run.duplicates) for run in runs if run.duplicates])
    lines += _kills([(run.seed, run.kills) for run in runs if run.kills])
    return "\n".join(lines) + "\n"


def _duplicates(storms: Sequence[tuple[int, Played]]) -> Iterator[str]:
    """Yield the table of the storms of duplicates, by seed."""
    if not storms:
        return
    by_status: dict[int, Counter[int]] = {seed: Counter() for seed, _ in storms}
    for seed, played in storms:
        for (status, _), number in played.findings.statuses.items():
            if status:  # an abandoned call has none
                by_status[seed][status] += number
    statuses = sorted({status for counts in by_status.values() for status in counts})
    yield from ("", "## Duplicates", "")
    yield DUPLICATES
    yield _row("seed", "calls", "decision points", "given up", *map(str, statuses), "seconds", "wrong")
    yield "|" + "---|" * (len(statuses) + 6)
    for seed, played in storms:
        findings, counts = played.findings, by_status[seed]
        numbers = (
            findings.calls,
            played.points,
            findings.abandoned,
            *(counts[status] for status in statuses),
        )
        yield _row(str(seed), *(f"{n:,}" for n in numbers), f"{played.seconds:.0f}", str(len(played.wrong)))


def _kills(storms: Sequence[tuple[int, Storm]]) -> Iterator[str]:
    """Yield the table of the storms of kills, by seed, and the details of the last one."""
    if not storms:
        return
    last_seed, last = storms[-1]
    yield from ("", "## Killed processes", "")
    yield KILLS.format(plan=last.plan)
    yield _row(
        *("seed", "seconds", "processes killed", "claims of dead workers", "calls repeated"),
        *("values equal in lockstep", "values equal free-running", "the poisoned task", "wrong"),
    )
    yield "|" + "---|" * 9
    for seed, storm in storms:
        outcomes, job = storm.outcomes, storm.poisoning.job
        yield _row(
            str(seed),
            f"{storm.seconds:.0f}",
            str(sum(len(outcome.kills) for outcome in outcomes)),
            str(sum(outcome.put_back for outcome in outcomes)),
            str(sum(outcome.repeated.total() for outcome in outcomes)),
            *("differ" if outcome.wrong else f"{outcome.compared:,}" for outcome in outcomes),
            f"{job.state} after {job.attempts} tries",
            str(len(storm.wrong)),
        )
    yield from ("", f"What follows is of seed {last_seed}.")
    yield from kills_report.details(last)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
