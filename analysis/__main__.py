"""Analyses of an export: `python -m analysis COMMAND EXPORT`. EXPORT is a folder or a .zip."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from analysis import lifejacket, report, results, vw
from analysis.export_reader import BadExport, Export
from analysis.long_table import load
from analysis.randomisation import Count, two_sided
from analysis.wcls import Estimate

Command = Callable[[argparse.Namespace], Iterable[str]]
"""A function from the options of a command to the lines that it prints. Its docstring is the command's
help."""


def wcls(options: argparse.Namespace) -> Iterable[str]:
    """The effect of a message, moderated by the variables named."""
    trial = load(Export(options.export))
    effects = results.effects(trial, options.moderator, options.control, options.by_state, options.level)
    freedom = f"{effects.freedom} degrees of freedom"
    yield f"{effects.rows} decisions of {effects.participants} participants, {freedom}"
    yield _line("", "effect", "se", "low", "high", "p")
    for name, estimate in zip(effects.names, effects.estimates, strict=True):
        yield _estimate(name, estimate)
    yield f"no effect at all: p = {effects.joint_p:.4g}"


def randomisation(options: argparse.Namespace) -> Iterable[str]:
    """Messages sent against their probabilities, and the balance of what was known before."""
    check = results.randomisation_check(load(Export(options.export)))
    yield _line("", "decisions", "sent", "expected", "z", "p")
    yield _count(check.overall)
    for name, (counts, p) in check.groups.items():
        yield _line(name, "", "", "", "", f"{p:.4g}")
        yield from (_count(count) for count in counts)
    yield ""
    yield _line("weighted means", "sent", "not sent", "diff / sd", "z", "p")
    for balance in check.balance:
        means = (f"{mean:.4f}" for mean in (balance.sent, balance.not_sent, balance.standardised))
        yield _line(balance.name, *means, *_z(balance.z))


def offpolicy(options: argparse.Namespace) -> Iterable[str]:
    """The value of other policies at the states of this trial."""
    export = Export(options.export)
    trial = load(export)
    for name in options.policy:
        value = results.other_value(export, trial, name, options.level)
        yield f"{name}: {value.rows} decisions of {value.participants} participants"
        yield f"effective rows {value.effective_rows:.1f}, largest weight {value.largest_weight:.3g}"
        if name.startswith("policy:"):
            yield "a policy that learnt from these outcomes looks better on them than it is"
        yield _line("", "value", "se", "low", "high", "p")
        estimates = {"IPS": value.ips, "SNIPS": value.snips, "DR": value.doubly_robust}
        for label, estimate in estimates.items():
            yield _line(label, *_interval(estimate))
        yield _estimate("DR - trial", value.gain)


def dsjson(options: argparse.Namespace) -> Iterable[str]:
    """Write decisions as Vowpal Wabbit reads them."""
    count = 0
    with options.out.open("w", encoding="utf-8") as stream:
        for line in vw.lines(load(Export(options.export))):
            stream.write(line + "\n")
            count += 1
    yield f"{count} decisions in {options.out}"


def bundle(options: argparse.Namespace) -> Iterable[str]:
    """Write the files that the package lifejacket takes."""
    yield from lifejacket.write(lifejacket.bundle(Export(options.export), options.moderator), options.out)


def html(options: argparse.Namespace) -> Iterable[str]:
    """Write the report."""
    options.out.write_text(report.page(Export(options.export)), encoding="utf-8")
    yield f"report in {options.out}"


def _line(name: str, *cells: str) -> str:
    return f"{name:<48}" + "".join(f"{cell:>12}" for cell in cells)


def _interval(estimate: Estimate) -> list[str]:
    return [f"{value:.4f}" for value in (estimate.value, estimate.error, estimate.low, estimate.high)]


def _estimate(name: str, estimate: Estimate) -> str:
    return _line(name, *_interval(estimate), f"{estimate.p:.4g}")


def _count(count: Count) -> str:
    return _line(count.name, str(count.rows), str(count.sent), f"{count.expected:.1f}", *_z(count.z))


def _z(z: float) -> tuple[str, str]:
    return f"{z:.3f}", f"{two_sided(z):.4g}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "report", html, out=True)
    effects = _add(commands, "wcls", wcls, moderator=True)
    effects.add_argument("--control", action="append", help="a control (default: state, day and moderators)")
    effects.add_argument("--by-state", action="store_true", help="a numerator by cell of the moderators")
    _add(commands, "randomisation", randomisation)
    values = _add(commands, "offpolicy", offpolicy)
    values.add_argument("policy", nargs="+", help="a probability, or policy:ID")
    _add(commands, "vw", dsjson, out=True)
    _add(commands, "lifejacket", bundle, out=True, moderator=True)
    return whole


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Command,
    out: bool = False,
    moderator: bool = False,
) -> argparse.ArgumentParser:
    """Add a command with its common arguments and return its parser."""
    options = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
    options.add_argument("export", type=Path, help="a folder, or a .zip of one")
    if out:
        options.add_argument("out", type=Path, help="what to write")
    if moderator:
        variable = "a state variable, column or `day`"
        options.add_argument("--moderator", action="append", default=[], help=variable)
    options.add_argument("--level", type=float, default=0.95, help="of the intervals")
    options.set_defaults(command=command)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit code 1 where the export cannot be read or does not determine the result."""
    options = parser().parse_args(arguments)
    try:
        for line in options.command(options):
            print(line)
    except (BadExport, ValueError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
