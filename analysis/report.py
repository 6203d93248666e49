"""A short HTML page about a trial: tables and plots in one file that loads nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from html import escape

import numpy as np

from analysis import policies, results, svg
from analysis.export_reader import Export
from analysis.long_table import Trial, load
from analysis.randomisation import Count

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a202c}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;font-size:.9rem}
td,th{padding:.15rem .7rem .15rem 0;text-align:right;border-bottom:1px solid #e2e8f0}
td:first-child,th:first-child{text-align:left}figure{margin:1rem 0}
figcaption,.note{color:#4a5568;font-size:.85rem}svg{width:100%;height:auto;font:11px system-ui,sans-serif}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}
svg .grid{stroke:#e2e8f0}svg .level{stroke:#718096;stroke-dasharray:4 3}svg .bar{stroke-width:1.4}
svg .curve{fill:none;stroke-width:1.6}.legend{display:flex;flex-wrap:wrap;gap:0 1rem;padding:0 0 0 1rem;
font-size:.8rem;margin:0}
"""
GROUPS = 8
"""The number of groups of a grouping that are listed at most: those with the largest z."""
POLICIES = 40
"""The number of policies that are drawn at most, evenly chosen."""


def page(export: Export) -> str:
    """Return the page. Raises BadExport for an export that cannot be analysed."""
    trial = load(export)
    overview = (
        ("participants", len(np.unique(trial.participant))),
        ("decision points due", trial.table.rows),
        ("decided", int((trial.column("decided") == 1).sum())),
        ("randomised", int(trial.randomised.sum())),
        ("messages sent", int(np.nansum(trial.column("action")[trial.randomised]))),
        ("outcomes observed", int(np.isfinite(trial.column("outcome")).sum())),
        ("mean outcome", float(np.nanmean(trial.column("outcome")))),
    )
    missing = [(kind, count, count / trial.table.rows) for kind, count in trial.missing().items()]
    sections = (
        ("The trial", table(("", "number"), overview)),
        ("Effect of a message", _effects(trial)),
        ("Effect by day", _by_day(trial)),
        ("Probabilities by state over policies", _probabilities(export)),
        ("Engagement by day", _engagement(trial)),
        ("Missing outcomes", table(("outcome", "rows", "share"), missing)),
        ("Randomisation", _randomisation(trial)),
    )
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections)
    name = escape(str(export.manifest["study"]["name"]))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Trial {name}</title><style>{STYLE}</style></head><body><h1>Trial {name}</h1>"
        f'<p class="note">Data as of {escape(str(export.manifest.get("as_of", "?")))}. Intervals: 95 %.</p>'
        f"{body}</body></html>\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table; numbers are rounded to four digits."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = ("".join(f"<td>{escape(shown(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def shown(cell: object) -> str:
    """Return the text of a cell."""
    if isinstance(cell, float):
        return "-" if np.isnan(cell) else f"{cell:.4g}"
    return str(cell)


def _effects(trial: Trial) -> str:
    note = (
        '<p class="note">Causal excursion effect on the proximal outcome, by weighted and centred least '
        "squares with Mancl and DeRouen's correction; on average, then by each state variable.</p>"
    )
    rows = []
    for moderators in ((), *((name,) for name in trial.state_names)):
        try:
            effects = results.effects(trial, moderators)
        except ValueError as error:
            return f"{note}<p>{escape(str(error))}</p>"
        # the coefficient of "message" is the effect where the moderator is 0
        names = (f"where {moderators[0]} = 0", effects.names[1]) if moderators else effects.names
        estimates = zip(names, effects.estimates, strict=True)
        rows += [(name, *astuple(estimate)) for name, estimate in estimates]
    return note + table(("", "effect", "standard error", "low", "high", "p"), rows)


def _by_day(trial: Trial) -> str:
    by_day, over_days = results.effect_by_day(trial), results.effect_over_days(trial)
    points = [svg.Point(day, effect.value, effect.low, effect.high) for day, effect in by_day]
    trend = [svg.Point(day, effect.value) for day, effect in over_days]
    return svg.plot(
        "Effect of a message on each study day, with intervals; the line is a linear trend over all days",
        "study day",
        [svg.Series("each day alone", points, joined=False), svg.Series("linear trend", trend)],
        line=0.0,
    )


def _probabilities(export: Export) -> str:
    """Return the plot of the probabilities for somebody who is in no fit, so that policies can be
    compared."""
    protocol = policies.protocol(export)
    states = np.array(protocol.design.states(), dtype=np.float64)
    if len(states) > len(svg.COLOURS):
        states = states[np.linspace(0, len(states) - 1, len(svg.COLOURS)).astype(int)]
    ids = np.unique(export.table("policies").numbers("policy_id")).astype(int)
    numbers = ids[np.unique(np.linspace(0, len(ids) - 1, min(POLICIES, len(ids))).astype(int))]
    nobody = np.full(len(states), -1)  # no participant's id
    tables = [
        policies.decides(policies.policy(export, int(number)), protocol, nobody, states) for number in numbers
    ]
    series = [
        svg.Series(
            " ".join(f"{value:g}" for value in state),
            [
                svg.Point(float(number), float(row[place]))
                for number, row in zip(numbers, tables, strict=True)
            ],
        )
        for place, state in enumerate(states)
    ]
    names = ", ".join(protocol.design.state_names)
    return svg.plot(f"Probability of a message for a new participant, by state ({names})", "policy", series)


def _engagement(trial: Trial) -> str:
    days = results.engagement(trial)
    shares = [
        svg.Series("decided", [svg.Point(day.day, day.decided) for day in days]),
        svg.Series("outcome observed", [svg.Point(day.day, day.observed) for day in days]),
        svg.Series("message, where available", [svg.Point(day.day, day.sent) for day in days]),
    ]
    mean = [svg.Series("mean outcome", [svg.Point(day.day, day.outcome) for day in days])]
    return svg.plot("Shares of the decision points due", "study day", shares) + svg.plot(
        "Mean outcome", "study day", mean
    )


def _randomisation(trial: Trial) -> str:
    check = results.randomisation_check(trial)
    rows = [_count_cells(check.overall)]
    for name, (counts, p) in check.groups.items():
        rows.append((name, "", "", "", "", f"{p:.3g}"))
        largest = sorted(counts, key=lambda count: -abs(count.z))[:GROUPS]
        rows += [_count_cells(count) for count in counts if count in largest]
    balances = [astuple(balance) for balance in check.balance]
    return (
        '<p class="note">Messages sent against the sum of their probabilities; z is standard normal. '
        f"Of each kind at most {GROUPS} groups are listed, those with the largest z.</p>"
        + table(("", "decisions", "sent", "expected", "z", "p"), rows)
        + '<p class="note">Means weighted by inverse probabilities.</p>'
        + table(("", "sent", "not sent", "difference in sd", "z"), balances)
    )


def _count_cells(count: Count) -> tuple[object, ...]:
    # the column p belongs to whole groupings
    return count.name, count.rows, count.sent, count.expected, count.z, ""
