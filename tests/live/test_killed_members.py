"""The embedded farm restarts a process of its own that dies: here with processes that do nothing else."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plumbum import local

from farm.errors import FarmNotRunning, HostUnfit
from farm.up.members import Members
from tests.waiting import until

pytestmark = pytest.mark.live
WITHIN_S = 20.0


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def members(tmp_path: Path, said: list[str]) -> Iterator[Members]:
    members = Members(tmp_path, warn=said.append, first_pause_s=0.05)
    yield members
    for member in members.stop_restarting(list(members.processes)):
        member.send(signal.SIGKILL)
        member.wait(None)
    members.close()


def start(members: Members, name: str, script: str) -> int:
    members.start(name, [sys.executable, "-c", script], {})
    return members.processes[name]


SLEEPS = "import time; print('I sleep', flush=True); time.sleep(600)"


def test_one_that_is_killed_is_started_again_and_the_others_are_not(members: Members, said: list[str]) -> None:
    first, other = start(members, "one", SLEEPS), start(members, "two", SLEEPS)
    members.watch()
    os.kill(first, signal.SIGKILL)
    until(lambda: members.processes["one"] != first, "another process")
    members.check()
    assert members.processes["two"] == other
    (line,) = said
    assert line.startswith("one was ended by SIGKILL: ")
    assert line.endswith("it is started again in 0.05 s")


def test_one_gets_the_environment_that_it_is_given_and_nothing_of_the_farms_own(
    members: Members, tmp_path: Path
) -> None:
    with local.env(SECRET="of the farm"):
        members.start("one", [sys.executable, "-c", "import os; print(dict(os.environ))"], {"GIVEN": "1"})
    until(lambda: "GIVEN" in (tmp_path / "one.log").read_text(), "its log")
    assert "SECRET" not in (tmp_path / "one.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGRTMIN + 1])
def test_a_process_whose_log_is_gone_is_started_again_all_the_same(
    members: Members, said: list[str], tmp_path: Path, number: int
) -> None:
    first = start(members, "one", SLEEPS)
    until(lambda: "I sleep" in (tmp_path / "one.log").read_text(), "its log")
    (tmp_path / "one.log").unlink()
    members.watch()
    os.kill(first, number)
    until(lambda: members.processes["one"] != first, "another process")
    members.check()
    assert "its log cannot be read: No such file or directory" in said[0]


@pytest.mark.parametrize("end", [OSError(28, "No space left on device"), SystemExit(1)])
def test_a_warning_that_cannot_be_written_stops_no_worker(tmp_path: Path, end: BaseException) -> None:
    def warn(_: str) -> None:
        raise end

    members = Members(tmp_path, warn=warn, first_pause_s=0.05)
    first = start(members, "one", SLEEPS)
    members.watch()
    os.kill(first, signal.SIGKILL)
    until(lambda: members.processes["one"] != first, "another process")
    members.check()
    for member in members.stop_restarting(["one"]):
        member.send(signal.SIGKILL)
        member.wait(None)
    members.close()


def test_a_tool_that_is_missing_for_a_while_ends_no_supervision(
    members: Members, said: list[str], tmp_path: Path
) -> None:
    first = start(members, "one", SLEEPS)
    members.watch()
    with local.env(PATH=str(tmp_path)):
        os.kill(first, signal.SIGKILL)
        until(lambda: len(said) > 1, "a start that failed")
    until(lambda: members.processes["one"] != first, "another process")
    members.check()
    assert said[1].startswith("one could not be started: setpriv is not on PATH; install util-linux")


def test_a_missing_tool_is_named_at_the_first_start(members: Members, tmp_path: Path) -> None:
    with local.env(PATH=str(tmp_path)), pytest.raises(HostUnfit, match="setpriv is not on PATH"):
        start(members, "one", SLEEPS)


def test_one_that_dies_five_times_in_a_minute_is_given_up_with_its_last_word(members: Members, said: list[str]) -> None:
    start(members, "one", "import sys; print('no disk', file=sys.stderr); sys.exit(3)")
    members.watch()

    with pytest.raises(FarmNotRunning, match=r"one ended with 3: no disk .*; that was 5 times within 60 s"):
        until(members.check, "the error")
    pauses = [line.rpartition(" in ")[2] for line in said]
    assert pauses == ["0.05 s", "0.1 s", "0.2 s", "0.4 s"]


def test_before_the_farm_is_up_a_death_is_an_error(members: Members) -> None:
    start(members, "one", "import sys; sys.exit('nowhere to go')")
    with pytest.raises(FarmNotRunning, match="one ended with 1: nowhere to go"):
        until(members.check, "the error")


def test_a_lease_that_was_released_stays_dead(members: Members, said: list[str]) -> None:
    start(members, "one", SLEEPS)
    start(members, "two", SLEEPS)
    members.watch()
    (one,) = members.stop_restarting(["one", "nobody"])
    (two,) = (members.processes["two"],)
    one.send(signal.SIGTERM)
    assert one.wait(WITHIN_S)
    os.kill(two, signal.SIGKILL)
    until(lambda: members.processes["two"] != two, "the other's second life")
    assert members.processes["one"] == one.popen.pid
    assert [line.split()[0] for line in said] == ["two"]
