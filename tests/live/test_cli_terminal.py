"""The installed command as a process of its own: on a real terminal, in a pipe that breaks, under Ctrl-C."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.driven_farm import DrivenFarm, driven_farm

WITHIN_S = 30.0
FARM = [sys.executable, "-m", "farm.cli.main"]
GIT = ["build", "--git", "https://example.org/hello.git", "-t", "demo", "-a", "x86_64"]


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path) as driven:
        yield driven


def environment(driven: DrivenFarm, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **driven.env, **more}


class Terminal:
    """A command on a terminal of 100 columns; `screen` is all that it wrote."""

    def __init__(self, driven: DrivenFarm, *words: str, term: str = "xterm-256color") -> None:
        self._primary, secondary = pty.openpty()
        env = environment(driven, TERM=term, COLUMNS="100", LINES="40")
        self.process = subprocess.Popen(
            [*FARM, *words], stdin=secondary, stdout=secondary, stderr=secondary, env=env, start_new_session=True
        )
        os.close(secondary)
        self.screen = ""

    def read_until(self, is_there: Callable[[str], object]) -> str:
        deadline = time.monotonic() + WITHIN_S
        while not is_there(self.screen):
            assert time.monotonic() < deadline, self.screen
            if select.select([self._primary], [], [], 0.1)[0] and not self._read():
                break
        return self.screen

    def end(self) -> int:
        """Read to the end; the exit code."""
        self.read_until(lambda _screen: False)
        os.close(self._primary)
        return self.process.wait(WITHIN_S)

    def _read(self) -> bool:
        try:
            data = os.read(self._primary, 2**16)
        except OSError:  # Linux says so when the last process closed the terminal
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)


def words_on(screen: str) -> str:
    """Without the escape sequences that the program itself wrote."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


def test_a_wait_on_a_terminal_shows_the_steps_live_and_then_the_next_command(driven: DrivenFarm) -> None:
    terminal = Terminal(driven, *GIT, "--wait")
    terminal.read_until(lambda screen: "ready" in screen)
    driven.to_build(1)
    driven.start("1.build.x86_64.1", worker="build@somewhere")
    terminal.read_until(lambda screen: "on build@somewhere" in screen)
    driven.fail("1.build.x86_64.1", "no \x1b[5mluck")
    assert terminal.end() == 10
    said = words_on(terminal.screen)
    assert "no \\x1b[5mluck" in said
    assert "\x1b[5m" not in terminal.screen
    assert "│ make: *** [all] Error 2" in said
    assert said.rstrip().endswith("try again    farm retry 1")


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(driven: DrivenFarm) -> None:
    terminal = Terminal(driven, *GIT, "--wait", term="dumb")
    deadline = time.monotonic() + WITHIN_S
    while not driven.farm.builds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driven.finish(1)
    assert terminal.end() == 0
    assert "\x1b" not in terminal.screen
    assert "1 hello succeeded in" in terminal.screen


def test_a_log_cannot_take_over_a_terminal(driven: DrivenFarm) -> None:
    driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
    driven.to_build(1)
    driven.fail("1.build.x86_64.1", log=b"\x1b]0;owned\x07\xff\r\nd\xc3\xa9j\xc3\xa0 vu\x9b2J\n")
    terminal = Terminal(driven, "log", "1")
    assert terminal.end() == 0
    assert "\x1b]0;" not in terminal.screen
    assert "\\x1b]0;owned\\x07\\xff\r\ndéjà vu\\x9b2J" in terminal.screen


@pytest.mark.parametrize("wait", [["--wait"], ["--wait", "--json"]], ids=["lines", "json"])
def test_control_c_stops_looking_and_not_the_build(driven: DrivenFarm, wait: list[str]) -> None:
    process = subprocess.Popen(
        [*FARM, *GIT, *wait], env=environment(driven), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + WITHIN_S
    while not driven.farm.builds() or driven.subscribers() == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, said) == (
        130,
        "build 1 goes on: `farm status 1` shows it, `farm cancel 1` ends it\n",
    )
    assert driven.farm.build(1).outcome is None


def test_a_reader_that_goes_away_ends_the_command_quietly(driven: DrivenFarm) -> None:
    driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
    driven.to_build(1)
    driven.fail("1.build.x86_64.1", log=b"a line of a log\n" * 100_000)
    process = subprocess.Popen(
        [*FARM, "log", "1"], env=environment(driven), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"a line of a log\n"
    process.stdout.close()
    assert process.wait(WITHIN_S) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
