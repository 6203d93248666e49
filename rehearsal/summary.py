"""The rehearsal in figures, as lines of text."""

import math
from collections.abc import Iterator, Sequence

from rehearsal.checks import FARTHEST_Z, Ledger, z_score
from rehearsal.contract import Decision, Policy, StudyReport
from rehearsal.play import Rehearsal

MIWAVES_STATES = 8


def lines(play: Rehearsal, report: StudyReport, policies: Sequence[Policy]) -> Iterator[str]:
    """Yield the lines of the whole summary; the first of `policies` is the prior."""
    decisions, last = play.decisions(), policies[-1]
    yield f"decisions         {report.decisions} of {report.participants} participants"
    yield f"windows ingested  {report.windows.get('ingested', 0)}"
    yield f"policies fitted   {len(policies) - 1} (the last one from {last.rows} learning rows)"
    yield f"discrepancies     {report.discrepancies}"
    yield messages(decisions)
    p50, p99 = (1000 * quantile(play.action_seconds, share) for share in (0.50, 0.99))
    yield f"/actions          p50 {p50:.1f} ms, p99 {p99:.1f} ms ({play.threads} at a time)"
    yield f"/ema_study        {play.backend.calls} calls, {play.backend.failed_on_purpose} failed on purpose"
    yield f"time              {play.walked_seconds:.0f} s, then {play.settled_seconds:.0f} s of waiting"
    yield from probabilities(policies[0], last)
    yield from checks(play.ledger)


def messages(decisions: Sequence[Decision]) -> str:
    """Return a line with the share of messages that were drawn and the mean of their probabilities."""
    number = max(len(decisions), 1)
    share, mean = sum(d.action for d in decisions) / number, sum(d.act_prob for d in decisions) / number
    z = z_score(decisions)
    return f"messages          {share:.3f} sent, {mean:.3f} expected (z = {z:+.2f}, allowed {FARTHEST_Z:g})"


def probabilities(first: Policy, last: Policy) -> Iterator[str]:
    """Yield a table of the population's act_prob per state under two policies."""
    states = sorted(first.act_prob)
    label = "state S1 S2 S3" if len(states) == MIWAVES_STATES else "state"
    yield f"{label:<18}" + "  ".join(f"{state:>6}" for state in states)
    for policy in (first, last):
        values = "  ".join(f"{policy.act_prob[state]:.4f}" for state in states)
        yield f"policy {policy.policy_id:<10} {values}"


def checks(ledger: Ledger) -> Iterator[str]:
    """Yield a line per check, and examples under the checks that failed."""
    yield "checks"
    for name, count in ledger.counts.items():
        failed = ledger.failed[name]
        yield f"  {'FAILED' if failed else 'held  '} {count - failed:>6} of {count:<6} {name}"
        yield from (f"           for example: {example}" for example in ledger.examples.get(name, []))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of `values` do not exceed, nan without values."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else math.nan
