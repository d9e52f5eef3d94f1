"""Every limit with a real package that leaves processes running in every way there is: how it ends, what is kept, what
is left. The fixture `line` looks for mounts, cgroups, work folders and processes in a build root afterwards."""

import os
import secrets
import threading
import time
from pathlib import Path

import pytest

from farm.errors import LeaseLost
from farm.model.artifact import ArtifactKind
from farm.model.outcome import Outcome
from farm.model.target import LIMIT_RANGES
from tests.leftovers import inside
from tests.line import Line, leftovers
from tests.promises import Stopwatch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
]

_RAISE = "; --limit {}=… or the target's limits raise it"


@pytest.mark.parametrize(
    ("ends", "limits", "outcome", "reason"),
    [
        ("well", {}, Outcome.SUCCEEDED, None),
        ("badly", {}, Outcome.FAILED, ""),
        (
            "asleep",
            {"silence_s": 1},
            Outcome.STALLED,
            "wrote nothing and used no CPU for 1 s" + _RAISE.format("silence"),
        ),
        ("busy", {"silence_s": 1, "wall_s": 4}, Outcome.TIMED_OUT, "did not end within its limit of 4 s"),
        (
            "flood",
            {"log_bytes": 100_000},
            Outcome.OVER_LIMIT,
            "flooded the log: wrote more than 4 times its limit of 100000 bytes" + _RAISE.format("log"),
        ),
        (
            "memory",
            {"memory_bytes": 128 * 2**20},
            Outcome.OVER_LIMIT,
            "used more memory than its limit of 128 MiB" + _RAISE.format("memory"),
        ),
        (
            "file",
            {"disk_bytes": 32 * 2**20},
            Outcome.OVER_LIMIT,
            "wrote a file larger than its disk limit of 32 MiB" + _RAISE.format("disk"),
        ),
        (
            "files",
            {"disk_bytes": 32 * 2**20},
            Outcome.OVER_LIMIT,
            "used more disk than its limit of 32 MiB" + _RAISE.format("disk"),
        ),
        (
            "processes",
            {"processes": 100},
            Outcome.OVER_LIMIT,
            "wanted more processes and threads than its limit of 100" + _RAISE.format("processes"),
        ),
        (
            "bomb",
            {"processes": 100, "wall_s": 4},
            Outcome.TIMED_OUT,
            "did not end within its limit of 4 s, and its limit of 100 processes had refused it more",
        ),
    ],
)
def test_each_end_has_its_message_keeps_the_log_and_leaves_no_process(
    line: Line, ends: str, limits: dict[str, int], outcome: Outcome, reason: str | None
) -> None:
    """The one that is silent at full CPU outlives three times its limit of silence."""
    mark = f"mark-{secrets.token_hex(8)}"
    result = line.git("leaves-running", defines=(("ends", ends), ("mark", mark)), **limits)
    assert marked(mark) == []
    assert leftovers(line.settings) == []
    assert (result.outcome, line.ended_in) == (outcome, "build"), line.log.decode(errors="replace")[-2000:]
    assert reason == "" or result.reason == reason
    assert b"four are left running" in line.log
    kinds = {artifact.kind for artifact in result.artifacts}
    assert kinds == {ArtifactKind.LOG, ArtifactKind.RECORD} | ({ArtifactKind.RPM} if outcome.is_success else set())


@pytest.mark.parametrize("ends", ["asleep", "bomb"])
def test_a_stopped_build_is_gone_within_a_second_also_when_it_is_deaf_or_forks_like_mad(line: Line, ends: str) -> None:
    mark, limit = f"mark-{secrets.token_hex(8)}", 200
    line.stop = threading.Event()

    def stopped() -> None:
        with pytest.raises(LeaseLost):
            line.git("leaves-running", defines=(("ends", ends), ("mark", mark)), processes=limit)

    thread = threading.Thread(target=stopped)
    thread.start()
    least = limit // 2 if ends == "bomb" else 5
    until = time.monotonic() + 30
    while len(marked(mark)) < 4 or len(inside(line.settings)) < least:
        assert thread.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)
    watch = Stopwatch()
    line.stop.set()
    while marked(mark) or [one for one in leftovers(line.settings) if "/work/" not in one]:
        assert watch.within(1)
        time.sleep(0.01)
    thread.join()
    assert watch.within(2), "its folder, too"


def marked(mark: str) -> list[int]:
    """Processes of any place and parent with the mark among their arguments."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in words.read_bytes().split(b"\0"):
                found.append(int(words.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("limits", [{"memory_bytes": 2**22}, {"processes": 1}])
def test_a_limit_too_low_for_the_sandbox_itself_is_no_farm_trouble(line: Line, limits: dict[str, int]) -> None:
    """No request may ask for one process, but hosts and distributions differ in how many they need to start."""
    result = line.git("hello-noarch", **limits)
    assert (result.outcome, line.ended_in) == (Outcome.OVER_LIMIT, "build")


@pytest.mark.parametrize("name", ["memory_bytes", "disk_bytes", "log_bytes", "processes"])
def test_a_small_package_gets_by_with_the_least_that_can_be_asked_for(line: Line, name: str) -> None:
    least, _ = LIMIT_RANGES[name]
    assert line.git("hello-noarch", **{name: least}).outcome is Outcome.SUCCEEDED
