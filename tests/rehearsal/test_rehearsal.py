"""The whole rehearsal against the real service: API, worker, beat, database and broker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local.ports import free_port
from local.stack import Stack
from tests.rehearsal.pilot import PILOT, needs_pilot

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "the-token-of-the-study"


def run(stack: Stack, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of this project in the environment of the stack."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=stack.env | {"KAIROS_EMA_TOKEN": TOKEN} | environment,
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=580,
    )


def command(stack: Stack, *words: str) -> dict[str, str]:
    """Run a command of the service and return the JSON object that it prints last."""
    process = run(stack, "flask", "--app", "api.app", *words)
    assert process.returncode == 0, process.stderr
    printed: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return printed


def create(stack: Stack, study: str, length: int = 60, *more: str) -> list[str]:
    """Create a study and return the words that play it."""
    port = str(free_port())
    settings = ("--set", "refit.min_interval_minutes=0", "--set", f"schedule.study_length={length}")
    command(
        stack, "study", "create", study, "--ema-url", f"http://127.0.0.1:{port}/ema_study", *settings, *more
    )
    return ["rehearsal", "--api", stack.api_url, "--study", study, "--listen", port]


def figure(output: str, label: str) -> str:
    """Return the first word after a label of the summary."""
    return next(line.removeprefix(label).split()[0] for line in output.splitlines() if line.startswith(label))


def test_synthetic_participants_to_the_end_of_the_study(stack: Stack) -> None:
    play = create(stack, "synthetic", length=12)
    name, role = "researcher-of-synthetic", ("--role", "researcher")
    password = command(stack, "client", "create", name, "--study", "synthetic", *role)["password"]
    process = run(stack, *play, "--participants", "6", REHEARSAL_RESEARCHER=f"{name}:{password}")
    assert process.returncode == 0, process.stdout + process.stderr
    assert figure(process.stdout, "decisions") == "72"
    assert figure(process.stdout, "windows ingested") == "72"
    assert int(figure(process.stdout, "policies fitted")) >= 1  # how many, who else wants the processors says
    assert "every check held" in process.stdout
    assert process.stderr.splitlines()[-2].startswith("decision points: 72 of 72")


def test_brushing_participants_of_an_oralytics_study(stack: Stack, tmp_path: Path) -> None:
    play = create(stack, "brushing", 6, "--protocol", "oralytics")
    process = run(stack, *play, "--participants", "5")
    assert process.returncode == 0, process.stdout + process.stderr
    assert figure(process.stdout, "decisions") == "30"
    assert "(the last one from 30 learning rows)" in process.stdout
    assert "every check held" in process.stdout
    name, role = "auditor-of-brushing", ("--role", "researcher")
    command(stack, "client", "create", name, "--study", "brushing", *role)
    command(stack, "export", "brushing", str(tmp_path / "export"), "--account", name)
    replayed = run(stack, "replay", str(tmp_path / "export"))
    assert (replayed.returncode, replayed.stdout.splitlines()[-1]) == (0, "no divergence"), replayed.stdout


@needs_pilot
@pytest.mark.timeout(600)
def test_recorded_participants(stack: Stack) -> None:
    process = run(stack, *create(stack, "recorded", length=90), "--recorded", str(PILOT))
    assert process.returncode == 0, process.stdout + process.stderr
    assert figure(process.stdout, "decisions") == "707"
    assert figure(process.stdout, "windows ingested") == "707"
    # everybody's last point has no successor, and one participant has a gap: 707 - 9 - 1
    assert "(the last one from 697 learning rows)" in process.stdout


def test_data_that_never_comes_fails_the_rehearsal_and_names_the_windows(stack: Stack) -> None:
    options = ("--participants", "2", "--points", "3", "--patience", "4")
    process = run(stack, *create(stack, "refused"), *options, KAIROS_EMA_TOKEN="of-another-study")
    assert process.returncode == 1
    assert "windows ingested" in process.stdout.splitlines()[-1]
    named = {line.split(":")[1].strip() for line in process.stderr.splitlines() if "not ingested" in line}
    assert named == {f"synthetic-{person:03} window {index}" for person in (1, 2) for index in (1, 2, 3)}


def test_a_study_with_participants_is_not_played_again(stack: Stack) -> None:
    play = [*create(stack, "again"), "--participants", "1", "--points", "1"]
    results = [run(stack, *play, REHEARSAL_CLIENT="again:a-password-that-is-long") for _ in range(2)]
    assert [process.returncode for process in results] == [0, 2]
    assert results[1].stderr == "rehearsal: study again has participants already: make a new one\n"


def test_a_study_that_does_not_exist_is_one_sentence(stack: Stack) -> None:
    words = ("rehearsal", "--api", stack.api_url, "--study", "absent", "--listen", str(free_port()))
    process = run(stack, *words)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "study must name one" in process.stderr
