"""Analyses of an export: `python -m analysis COMMAND EXPORT`. EXPORT is a folder or a .zip."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from analysis import lifejacket, report, results, vw
from analysis.export_reader import BadExport, Export
from analysis.long_table import load
from analysis.randomisation import Balance, Count, two_sided
from analysis.wcls import Estimate

Command = Callable[[argparse.Namespace], Iterable[str]]


def wcls(given: argparse.Namespace) -> Iterable[str]:
    """The effect of a message, moderated by what is asked for."""
    trial = load(Export(given.export))
    found = results.effects(trial, given.moderator, given.control, given.by_state, given.level)
    yield f"{found.rows} decisions of {found.participants} participants, {found.freedom} degrees of freedom"
    yield _line("", "effect", "se", "low", "high", "p")
    yield from (_estimate(name, one) for name, one in zip(found.names, found.estimates, strict=True))
    yield f"no effect at all: p = {found.joint_p:.4g}"


def randomisation(given: argparse.Namespace) -> Iterable[str]:
    """Messages sent against their probabilities, and the balance of what was known before."""
    found = results.randomisation_check(load(Export(given.export)))
    yield _line("", "decisions", "sent", "expected", "z", "p")
    yield _count(found.overall)
    for name, (counts, p) in found.groups.items():
        yield _line(name, "", "", "", "", f"{p:.4g}")
        yield from (_count(one) for one in counts)
    yield ""
    yield _line("weighted means", "sent", "not sent", "diff / sd", "z", "p")
    yield from (_balance(one) for one in found.balance)


def offpolicy(given: argparse.Namespace) -> Iterable[str]:
    """The value of other policies at the states of this trial."""
    export = Export(given.export)
    trial = load(export)
    for name in given.policy:
        found = results.other_value(export, trial, name, given.level)
        yield f"{name}: {found.rows} decisions of {found.participants} participants"
        yield f"effective rows {found.effective_rows:.1f}, largest weight {found.largest_weight:.3g}"
        if name.startswith("policy:"):
            yield "a policy that learnt from these outcomes looks better on them than it is"
        yield _line("", "value", "se", "low", "high", "p")
        for label, one in {"IPS": found.ips, "SNIPS": found.snips, "DR": found.doubly_robust}.items():
            yield _line(label, *_interval(one))
        yield _estimate("DR - trial", found.gain)


def dsjson(given: argparse.Namespace) -> Iterable[str]:
    """Write decisions as Vowpal Wabbit reads them."""
    count = 0
    with given.out.open("w", encoding="utf-8") as stream:
        for line in vw.lines(load(Export(given.export))):
            stream.write(line + "\n")
            count += 1
    yield f"{count} decisions in {given.out}"


def bundle(given: argparse.Namespace) -> Iterable[str]:
    """Write what the package lifejacket takes."""
    found = lifejacket.write(lifejacket.bundle(Export(given.export), given.moderator), given.out)
    yield from found


def html(given: argparse.Namespace) -> Iterable[str]:
    """Write the report."""
    given.out.write_text(report.page(Export(given.export)), encoding="utf-8")
    yield f"report in {given.out}"


def _line(name: str, *cells: str) -> str:
    return f"{name:<48}" + "".join(f"{cell:>12}" for cell in cells)


def _interval(one: Estimate) -> list[str]:
    return [f"{value:.4f}" for value in (one.value, one.error, one.low, one.high)]


def _estimate(name: str, one: Estimate) -> str:
    return _line(name, *_interval(one), f"{one.p:.4g}")


def _count(one: Count) -> str:
    return _line(one.name, str(one.rows), str(one.sent), f"{one.expected:.1f}", *_z(one.z))


def _balance(one: Balance) -> str:
    return _line(one.name, *(f"{value:.4f}" for value in (one.sent, one.kept, one.standardised)), *_z(one.z))


def _z(z: float) -> tuple[str, str]:
    return f"{z:.3f}", f"{two_sided(z):.4g}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    one = _add(commands, "report", html, out=True)
    one = _add(commands, "wcls", wcls, moderator=True)
    one.add_argument("--control", action="append", help="a control (default: state, day and moderators)")
    one.add_argument("--by-state", action="store_true", help="a numerator by cell of the moderators")
    _add(commands, "randomisation", randomisation)
    one = _add(commands, "offpolicy", offpolicy)
    one.add_argument("policy", nargs="+", help="a probability, or policy:ID")
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
    one = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
    one.add_argument("export", type=Path, help="a folder, or a .zip of one")
    if out:
        one.add_argument("out", type=Path, help="what to write")
    if moderator:
        one.add_argument("--moderator", action="append", default=[], help="a state variable, column or `day`")
    one.add_argument("--level", type=float, default=0.95, help="of the intervals")
    one.set_defaults(command=command)
    return one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit code 1 where the export cannot be read or does not determine what is asked."""
    given = parser().parse_args(arguments)
    try:
        for line in given.command(given):
            print(line)
    except (BadExport, ValueError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
