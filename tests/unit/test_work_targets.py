"""A target's file that cannot be read for a while ends no build that was asked for before."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, cast

import pytest

from farm.artifacts import ArtifactStore, open_store
from farm.config import Settings
from farm.errors import BadTarget, NotFound, UnknownTarget
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.queues import build_queue
from farm.scheduler import work
from farm.scheduler.heads import Heads
from farm.scheduler.work import WorkMaker
from farm.store.projects import Surroundings
from farm.store.read_view import Ready
from farm.targets.record import digest_of, record_target
from tests.artifacts import path_of
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
    return WorkMaker(Settings(data=file.parent, targets=file.parent), cast("Heads", None), lambda _: Surroundings())


@pytest.mark.parametrize("break_", [lambda path: path.write_text("distribution = "), lambda path: path.unlink()])
def test_a_target_does_not_change(maker: WorkMaker, file: Path, clock: Clock, break_: Callable[[Path], object]) -> None:
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
    clock.now += 10_000  # without a question meanwhile, this does not tell how long the file is missing
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

    monkeypatch.setattr(Path, "iterdir", stale)  # as on NFS, once the server has made the folder again
    clock.now += 10
    assert maker.target("mine") == before
    with pytest.raises(BadTarget, match=f"FARM_TARGETS '{file.parent}' cannot be read: Stale file handle"):
        maker.target("other")


def test_the_work_says_that_a_repository_could_never_be_read(maker: WorkMaker, file: Path) -> None:
    file.write_text("distribution = ")
    with pytest.raises(BadTarget):
        maker.target("mine")
    pick = maker.pick(ready(None))
    assert (pick.wall_s, pick.following_wall_s) == (24 * 3600, 24 * 3600)


# --- recorded targets -----------------------------------------------------------------------------------------------


@pytest.fixture
def store(file: Path) -> ArtifactStore:
    return open_store(Settings(data=file.parent))


def changed(file: Path, clock: Clock) -> None:
    file.write_text(MINIMAL.replace('release = "7"', 'release = "8"'))
    clock.now += 10


def test_a_build_has_the_target_that_it_was_asked_for_with(
    maker: WorkMaker, file: Path, clock: Clock, store: ArtifactStore
) -> None:
    sha256 = record_target(maker.target("mine"), store).sha256
    changed(file, clock)
    assert maker.target_of("mine", sha256).release == "7"
    assert maker.target_of("mine", None).release == "8"
    file.unlink()
    for _ in range(2):
        clock.now += 1000
        maker._recorded.clear()
        assert maker.target_of("mine", sha256).release == "7"
    with pytest.raises(UnknownTarget):
        maker.target_of("mine", None)


def test_the_artifact_store_is_not_asked_while_the_target_is_unchanged(maker: WorkMaker, file: Path) -> None:
    today = maker.target("mine")
    assert not (file.parent / "artifacts").exists()
    assert maker.target_of("mine", digest_of(today)) == today


def test_a_record_that_is_no_longer_kept_ends_the_build_with_a_word(
    maker: WorkMaker, file: Path, clock: Clock, store: ArtifactStore
) -> None:
    sha256 = record_target(maker.target("mine"), store).sha256
    path_of(store, sha256).unlink()
    changed(file, clock)
    with pytest.raises(NotFound, match=r"target mine has changed, and its record .* enqueue the build again"):
        maker.target_of("mine", sha256)
    assert maker.pick(ready(sha256)).wall_s == 24 * 3600


def test_limits_are_those_of_the_recorded_target(
    maker: WorkMaker, file: Path, clock: Clock, store: ArtifactStore
) -> None:
    file.write_text(f"{MINIMAL}\n[limits]\nwall_s = 600\n")
    sha256 = record_target(maker.target("mine"), store).sha256
    file.write_text(f"{MINIMAL}\n[limits]\nwall_s = 1200\n")
    clock.now += 10
    assert (maker.pick(ready(sha256)).wall_s, maker.pick(ready(None)).wall_s) == (600, 1200)


def test_only_so_many_recorded_targets_are_kept_in_memory(
    maker: WorkMaker, file: Path, clock: Clock, store: ArtifactStore
) -> None:
    today = maker.target("mine")
    digests = [record_target(replace(today, release=str(number)), store).sha256 for number in range(70)]
    for _ in range(2):
        assert [maker.target_of("mine", sha256).release for sha256 in digests] == [str(n) for n in range(70)]
    assert len(maker._recorded) == 64


def ready(sha256: str | None) -> Ready:
    return Ready(
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
        target_sha256=sha256,
    )
