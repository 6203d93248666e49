"""The rehearsal's command: its arguments, its exit status, and its sentence when it cannot start."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rehearsal.__main__ import main
from rehearsal.options import CannotStart, account, arguments
from tests.rehearsal.scripted import Answer, Script

WORDS = ["--api", "http://127.0.0.1:9", "--study", "trial", "--listen", "1"]
ROOT = Path(__file__).resolve().parents[2]
RUNNING = Answer(200, {"status": "success"})
TOKEN = Answer(200, {"status": "success", "auth_token": "token"})
NO_COUNTS = dict.fromkeys(
    ("participants", "decisions", "discrepancies", "policies", "policy_id", "rows", "policy_rows"), 0
)
EMPTY_STUDY = Answer(
    200,
    {"status": "success", "study": "trial", "windows": {}, "fallbacks": {}, "jobs": {}, "study_length": 60}
    | NO_COUNTS,
)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Check that the command fails with status 2 and one line on standard error, and return the line."""
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("rehearsal: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--participants", "0"], "--participants"),
        (["--participants", "many"], "--participants"),
        (["--points", "-1"], "--points"),
        (["--listen", "70000"], "--listen"),
        (["--api", "localhost:8000"], "--api"),
        (["--ema-faults", "2"], "--ema-faults"),
        (["--ema-faults", "nan"], "--ema-faults"),
        (["--patience", "0"], "--patience"),
        (["--other"], "--other"),
    ],
)
def test_a_bad_argument_is_named_in_one_sentence(
    wrong: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(capsys, *WORDS, *wrong)


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--api, --study, --listen" in refusal(capsys)


def test_defaults() -> None:
    options = arguments(WORDS)
    assert (options.participants, options.points, options.threads, options.ema_faults) == (None, None, 8, 0)


def test_a_file_that_cannot_be_read_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "absent.csv" in refusal(capsys, *WORDS, "--recorded", str(tmp_path / "absent.csv"))


def test_a_taken_port_is_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert f"port {port} cannot be listened on" in refusal(capsys, *WORDS, "--listen", port)


def test_a_service_that_is_not_there_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehearsal.__main__.START_SECONDS", 0.2)
    url = f"http://127.0.0.1:{free_port()}"
    sentence = refusal(capsys, *WORDS, "--api", url, "--listen", free_port())
    assert f"no answer from {url}/running" in sentence


def test_a_study_with_a_client_needs_its_account(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REHEARSAL_CLIENT", raising=False)
    closed = Answer(403, {"status": "fail", "message": "No more clients may register.", "error_code": 4})
    unknown = Answer(401, {"status": "fail", "message": "Unknown api_user.", "error_code": 7})
    with Script(RUNNING, closed, unknown).served() as url:
        sentence = refusal(capsys, *WORDS, "--api", url, "--listen", free_port())
    assert "REHEARSAL_CLIENT" in sentence


def test_an_interrupt_ends_it_at_once_also_while_the_service_is_away() -> None:
    answers = (RUNNING, TOKEN, EMPTY_STUDY, Answer(503, {}))  # nobody can be enrolled
    script = Script(*answers)
    with script.served() as url:
        words = ["--api", url, "--study", "trial", "--listen", free_port()]
        playing = subprocess.Popen(
            [sys.executable, "-m", "rehearsal", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        while len(script.requests) < 2 * len(answers):
            assert playing.poll() is None
            time.sleep(0.05)
        playing.send_signal(signal.SIGINT)
        _, error = playing.communicate(timeout=60)
    assert (playing.returncode, error) == (130, "rehearsal: interrupted\n")


def test_more_participants_than_recorded_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text(
        "participant,decision_index,decision_time,evening,brushing_seconds,app_used\n"
        "b,1,2026-03-02 07:30:00,0,130.0,1\n",
        encoding="utf-8",
    )
    options = ("--recorded", str(file), "--participants", "2", "--listen", free_port())
    with Script(RUNNING, TOKEN, EMPTY_STUDY).served() as url:
        assert "only 1 are recorded" in refusal(capsys, *WORDS, *options, "--api", url)


def test_points_beyond_the_study_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with Script(RUNNING, TOKEN, EMPTY_STUDY).served() as url:
        sentence = refusal(capsys, *WORDS, "--api", url, "--listen", free_port(), "--points", "61")
    assert sentence == "rehearsal: decision_index goes up to 61, but the study's length is 60\n"


@pytest.mark.parametrize("value", ["name", "name:", ":password"])
def test_an_account_is_name_and_password(value: str) -> None:
    with pytest.raises(CannotStart, match="X must be name:password"):
        account("X", {"X": value})


def test_a_password_may_have_colons() -> None:
    assert account("X", {"X": "name:pass:word"}) == ("name", "pass:word")
    assert account("X", {}) is None


def test_the_password_is_not_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHEARSAL_CLIENT", "app:hunter2hunter2")
    refused = Answer(401, {"status": "fail", "message": "Unknown api_user.", "error_code": 7})
    with Script(RUNNING, refused).served() as url:
        assert "hunter2" not in refusal(capsys, *WORDS, "--api", url, "--listen", free_port())
