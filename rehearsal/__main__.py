"""`python -m rehearsal --api URL --study NAME --listen PORT`: play a study's back end and check the service.

Environment: KAIROS_EMA_TOKEN (the bearer token that the service sends to /ema_study; without it everybody is
let in), REHEARSAL_CLIENT and REHEARSAL_RESEARCHER (name:password; without the first the rehearsal makes an
account of its own), REHEARSAL_REGISTRATION_TOKEN (the study's, where registering needs one).

Exit status: 0 every check held; 1 at least one did not; 2 the rehearsal could not start.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from rehearsal import miwaves_people, oralytics_people, recorded_people, summary
from rehearsal.backend import Backend, EmaServer, Faults
from rehearsal.checks import FARTHEST_Z, Ledger, check_prior, z_score
from rehearsal.client import ApiError, Client, Unreachable
from rehearsal.options import CannotStart, account, arguments
from rehearsal.people import Brusher, Person
from rehearsal.play import Rehearsal, check_report
from rehearsal.progress import progress

START_SECONDS = 10.0
PARTICIPANTS = 16
SYNTHETIC: dict[str, Callable[[int, int, int], Sequence[Person | Brusher]]] = {
    "miwaves": miwaves_people.people,
    "oralytics": oralytics_people.people,
}
MAY_EXIST = {403, 409}  # registering is over, or an account of this name is there


def main(given: Sequence[str] | None = None) -> int:
    """Run the rehearsal and return the exit status."""
    try:
        return _rehearse(arguments(given))
    except CannotStart as refusal:
        print(f"rehearsal: {refusal}", file=sys.stderr)
        return 2
    except (Unreachable, ApiError) as error:
        print(f"rehearsal: broken off: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rehearsal: interrupted", file=sys.stderr)
        return 130


def _rehearse(options: argparse.Namespace) -> int:
    backend = Backend(os.environ.get("KAIROS_EMA_TOKEN"), Faults(options.ema_faults, seed=options.seed))
    everybody = _recorded(options)
    with _listening(backend, options.listen):
        client = _client(options)
        reader = _reader(options, client)
        play = Rehearsal(client, backend, _people(options, client, everybody), options.threads, options.seed)
        _play(play)
        return _conclude(play, reader, options.patience)


def _recorded(options: argparse.Namespace) -> list[Person] | None:
    try:
        return recorded_people.people(options.recorded) if options.recorded else None
    except recorded_people.FileError as error:
        raise CannotStart(str(error)) from None


def _listening(backend: Backend, port: int) -> EmaServer:
    try:
        return EmaServer(backend, port)
    except OSError as error:
        raise CannotStart(f"port {port} cannot be listened on: {error.strerror}") from None


def _client(options: argparse.Namespace) -> Client:
    """The study's client account: the given one, or a new one."""
    own = (f"rehearsal-of-{options.study}", secrets.token_urlsafe(24))
    client = Client(options.api, options.study, *(account("REHEARSAL_CLIENT") or own), options.patience)
    try:
        client.running(START_SECONDS)
        _enter(client)
    except (Unreachable, ApiError) as error:
        raise CannotStart(str(error)) from None
    return client


def _enter(client: Client) -> None:
    try:
        client.register_client(os.environ.get("REHEARSAL_REGISTRATION_TOKEN"))
    except ApiError as refusal:
        if refusal.status not in MAY_EXIST:
            raise
        try:
            client.login()
        except ApiError as error:
            hint = "REHEARSAL_CLIENT=name:password names an account of the study"
            raise CannotStart(f"{refusal}; {error}; {hint}") from None


def _reader(options: argparse.Namespace, client: Client) -> Client:
    """Who reads the policies: the researcher where one is given."""
    given = account("REHEARSAL_RESEARCHER")
    if given is None:
        return client
    researcher = Client(options.api, options.study, *given, options.patience)
    try:
        researcher.login()
    except (Unreachable, ApiError) as error:
        raise CannotStart(f"REHEARSAL_RESEARCHER: {error}") from None
    return researcher


def _people(
    options: argparse.Namespace, client: Client, everybody: Sequence[Person | Brusher] | None
) -> list[Person | Brusher]:
    """Who is played, cut to the numbers asked for. Raises CannotStart where the study cannot hold them."""
    study = client.study()
    if study.participants:
        raise CannotStart(f"study {study.study} has participants already: make a new one")
    if study.protocol not in SYNTHETIC or (everybody is not None and study.protocol != "miwaves"):
        raise CannotStart(f"nobody can be played under the protocol {study.protocol} of study {study.study}")
    if everybody is None:
        count = options.participants or PARTICIPANTS
        everybody = SYNTHETIC[study.protocol](count, options.points or study.study_length, options.seed)
    if len(everybody) < (options.participants or 0):
        raise CannotStart(f"--participants {options.participants}: only {len(everybody)} are recorded")
    people = [replace(p, points=p.points[: options.points]) for p in everybody[: options.participants]]
    highest = max(point.decision_index for person in people for point in person.points)
    if highest > study.study_length:
        raise CannotStart(
            f"decision_index goes up to {highest}, but the study's length is {study.study_length}"
        )
    return people


def _play(play: Rehearsal) -> None:
    play.enrol()
    total = sum(len(played.person.points) for played in play.played)
    with progress(total, "decision points") as step:
        play.walk(step)
    print("waiting until every window is ingested and learnt from", file=sys.stderr, flush=True)


def _conclude(play: Rehearsal, reader: Client, patience: float) -> int:
    report, ledger = play.settle(patience), play.ledger
    check_report(ledger, report, play.expected())
    play.refit(patience)
    policies, decisions = reader.policies(), play.decisions()
    check_prior(ledger, decisions, policies[0])
    ledger.equal("rows in the last policy", policies[-1].rows, play.expected().rows)
    z = z_score(decisions)
    ledger.check("messages sent fit their probabilities", abs(z) < FARTHEST_Z, f"z = {z:.2f}")
    for line in summary.lines(play, report, policies):
        print(line)
    for line in play.not_ingested() if report.windows.get("ingested") != play.expected().ingested else []:
        print(f"not ingested: {line}", file=sys.stderr)
    return _verdict(ledger)


def _verdict(ledger: Ledger) -> int:
    if ledger.held:
        print(f"every check held ({ledger.made.total()} in all)")
        return 0
    print(f"FAILED: {', '.join(ledger.failed)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
