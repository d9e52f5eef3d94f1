"""`farm` with its standard output or standard error closed, full, or a pipe that nobody reads any more."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

_FARM = f"{shlex.quote(sys.executable)} -m farm.cli.main"
_COMMANDS = ("targets", "targets --json", "config", "status", "list", "workers", "--version", "log 1")


@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_exit_code(tmp_path: Path, command: str, streams: str) -> None:
    assert _run(tmp_path, f"{_FARM} {command} {streams}").returncode == _run(tmp_path, f"{_FARM} {command}").returncode


@pytest.mark.parametrize("command", ["targets", "config"])
def test_a_reader_that_left_ends_the_command_without_a_word(tmp_path: Path, command: str) -> None:
    done = _run(tmp_path, f"({_FARM} {command}; echo code $? >&2) | true")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.strip() in ("code 141", "code 0"), "0 if the answer was written before the reader left"


def test_a_full_standard_output_is_named(tmp_path: Path) -> None:
    done = _run(tmp_path, f"{_FARM} targets > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: No space left on device")
    assert "Exception ignored" not in done.stderr


def test_a_full_standard_error_does_not_end_the_command(tmp_path: Path) -> None:
    assert _run(tmp_path, f"{_FARM} log 1 2> /dev/full").returncode == _run(tmp_path, f"{_FARM} log 1").returncode


def test_a_closed_output_does_not_go_into_a_file_that_is_opened_later(tmp_path: Path) -> None:
    """The database would otherwise be opened as number 1 or 2, and get the output of libraries."""
    script = (
        "from farm.cli.streams import open_closed\nimport sys\nopen_closed()\nfile = open('later', 'w')\n"
        "print('lost')\nsys.stdout.flush()\nassert file.fileno() > 2\n"
    )
    assert _run(tmp_path, f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} >&- 2>&-").returncode == 0
    assert (tmp_path / "later").read_text() == ""


def _run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "FARM_DATA": str(folder / "data"), "HOME": str(folder)}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
