"""A target's file that cannot be read for a while ends no build that was asked for before."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

import pytest

from farm.config import Settings
from farm.errors import BadTarget, UnknownTarget
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.queues import build_queue
from farm.scheduler import work
from farm.scheduler.heads import Heads
from farm.scheduler.work import WorkMaker
from farm.store.read_view import Ready
from tests.unit.test_targets import MINIMAL


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(work, "time", clock)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(MINIMAL)
    return tmp_path / "mine.toml"


@pytest.fixture
def maker(file: Path) -> WorkMaker:
    return WorkMaker(Settings(data=file.parent, targets=file.parent), cast("Heads", None))


@pytest.mark.parametrize("break_", [lambda path: path.write_text("distribution = "), lambda path: path.unlink()])
def test_a_target_stays_what_it_was(
    maker: WorkMaker, file: Path, clock: Clock, break_: Callable[[Path], object]
) -> None:
    before = maker.target("mine")
    break_(file)
    for _ in range(3):
        clock.now += 10
        assert maker.target("mine") == before
    file.write_text(MINIMAL.replace('release = "7"', 'release = "8"'))
    clock.now += 10
    assert maker.target("mine").release == "8"


def test_one_that_was_removed_is_gone_after_a_minute_and_one_that_is_broken_is_not(
    maker: WorkMaker, file: Path, clock: Clock
) -> None:
    maker.target("mine")
    file.write_text("distribution = ")
    clock.now += 10_000
    maker.target("mine")
    file.unlink()
    clock.now += 10_000  # in which nobody asked: that says nothing of how long it is gone
    maker.target("mine")
    clock.now += 30
    maker.target("mine")
    clock.now += 31
    with pytest.raises(UnknownTarget):
        maker.target("mine")


def test_a_folder_that_cannot_be_read_for_a_moment_is_no_error_of_the_schedulers(
    maker: WorkMaker, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = maker.target("mine")

    def stale(path: Path) -> NoReturn:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(Path, "iterdir", stale)  # as on NFS, once the server has made the folder anew
    clock.now += 10
    assert maker.target("mine") == before
    with pytest.raises(BadTarget, match=f"FARM_TARGETS '{file.parent}' cannot be read: Stale file handle"):
        maker.target("other")


def test_of_one_that_could_never_be_read_the_work_says_so(maker: WorkMaker, file: Path) -> None:
    file.write_text("distribution = ")
    with pytest.raises(BadTarget):
        maker.target("mine")
    ready = Ready(
        step_id=1,
        build_id=1,
        kind="build",
        arch=Arch.X86_64,
        queue=build_queue(Arch.X86_64),
        priority=0,
        owner="ann",
        target="mine",
        package="hello",
        options=BuildOptions(),
    )
    pick = maker.pick(ready)
    assert (pick.wall_s, pick.following_wall_s) == (24 * 3600, 24 * 3600)
