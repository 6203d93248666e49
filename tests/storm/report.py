"""The page that tells of several storms: a line for each run, and the details of the last."""

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
    """Both halves with one seed; None where a half was left out."""

    seed: int
    duplicates: Played | None
    kills: Storm | None

    @property
    def wrong(self) -> list[str]:
        """What is wrong in either, one sentence each."""
        return [sentence for half in (self.duplicates, self.kills) if half for sentence in half.wrong]


def page(runs: Sequence[Run]) -> str:
    """The whole page."""
    return "\n".join(_lines(runs)) + "\n"


def _lines(runs: Sequence[Run]) -> Iterator[str]:
    *before, last = (str(run.seed) for run in runs)
    seeds = f"seeds {', '.join(before)} and {last}" if before else f"seed {last}"
    wrong = [f"seed {run.seed}: {sentence}" for run in runs for sentence in run.wrong]
    found = f"{len(wrong)} things wrong" if wrong else "nothing wrong"
    yield from ("# The service under fire", "")
    yield f"`make storm` against real processes, with {seeds}, found {found}."
    yield from ("", *(f"- {sentence}" for sentence in wrong[:20])) if wrong else ()
    yield from _duplicates([(run.seed, run.duplicates) for run in runs if run.duplicates])
    yield from _kills([(run.seed, run.kills) for run in runs if run.kills])


def _duplicates(halves: Sequence[tuple[int, Played]]) -> Iterator[str]:
    if not halves:
        return
    by_status = {seed: _by_status(played) for seed, played in halves}
    statuses = sorted({status for counted in by_status.values() for status in counted})
    yield from ("", "## Duplicates", "")
    yield DUPLICATES
    yield _row("seed", "calls", "decision points", "given up", *map(str, statuses), "seconds", "wrong")
    yield "|" + "---|" * (len(statuses) + 6)
    for seed, played in halves:
        found, counted = played.findings, by_status[seed]
        numbers = (found.calls, played.points, found.given_up, *(counted[status] for status in statuses))
        yield _row(str(seed), *(f"{n:,}" for n in numbers), f"{played.seconds:.0f}", str(len(played.wrong)))


def _by_status(played: Played) -> Counter[int]:
    """How many calls had which HTTP status; those that were given up had none."""
    found: Counter[int] = Counter()
    for (status, _), number in played.findings.statuses.items():
        if status:
            found[status] += number
    return found


def _kills(halves: Sequence[tuple[int, Storm]]) -> Iterator[str]:
    if not halves:
        return
    last_seed, last = halves[-1]
    yield from ("", "## Killed processes", "")
    yield KILLS.format(plan=last.plan)
    yield _row(
        *("seed", "seconds", "processes killed", "claims of dead workers", "calls repeated"),
        *("values equal in lockstep", "values equal free-running", "the poisoned task", "wrong"),
    )
    yield "|" + "---|" * 9
    yield from (_line(seed, storm) for seed, storm in halves)
    yield from ("", f"What follows is of seed {last_seed}.")
    yield from kills_report.details(last)


def _line(seed: int, storm: Storm) -> str:
    outcomes, job = storm.outcomes, storm.poisoning.job
    return _row(
        str(seed),
        f"{storm.seconds:.0f}",
        str(sum(len(one.kills) for one in outcomes)),
        str(sum(one.put_back for one in outcomes)),
        str(sum(one.repeated.total() for one in outcomes)),
        *("differ" if one.wrong else f"{one.compared:,}" for one in outcomes),
        f"{job.state} after {job.attempts} tries",
        str(len(storm.wrong)),
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
