"""`farm gc`: old artifacts and caches go, and nothing that anybody needs."""

import fcntl
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farm.artifacts import open_store
from farm.config import Settings
from farm.gc import caches
from farm.gc.artifacts import ArtifactCollector, Collected
from farm.model.artifact import Artifact, ArtifactKind
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from tests.artifacts import content_of
from tests.driven_farm import DrivenFarm, driven_farm
from tests.rpms import make_rpm
from tests.typed import Typed

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=10)
LONG_AGO = NOW - timedelta(days=10)
NAME = RepositoryName(target="demo", kind=RepositoryKind.SOURCE)


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path) as driven:
        yield driven


def ask(driven: DrivenFarm) -> int:
    return driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"]).id


def collect(driven: DrivenFarm, *, since: datetime = LATER, dry_run: bool = False) -> Collected:
    """As it would be in ten days, with the artifacts of today."""
    collector = ArtifactCollector(
        store=driven.store,
        artifacts=open_store(driven.settings),
        repositories=open_repositories(driven.settings),
        since=since,
        say=lambda _: None,
    )
    return collector.collect(dry_run=dry_run, now=LATER)


def is_there(driven: DrivenFarm, artifact: Artifact) -> bool:
    sha256 = artifact.sha256
    return (driven.settings.artifacts / sha256[:2] / sha256[2:4] / sha256).exists()


def orphan(driven: DrivenFarm, content: bytes = b"nobody names this") -> Artifact:
    return driven.stored("left.log", content, ArtifactKind.LOG)


def artifacts_of(driven: DrivenFarm, build_id: int) -> list[Artifact]:
    steps = driven.farm.build(build_id).steps
    return [artifact for step in steps for attempt in step.attempts for artifact in attempt.artifacts]


# --- artifacts ------------------------------------------------------------------------------------------------------


def test_artifacts_of_builds_that_ended_before_go_and_the_others_stay(driven: DrivenFarm) -> None:
    driven.finish(ask(driven))
    stored = {one.sha256: one for one in artifacts_of(driven, 1)}
    target = driven.farm.build(1).target_sha256 or ""
    left = orphan(driven)
    kept = collect(driven, since=NOW - timedelta(days=1))
    assert (kept.files, kept.old) == (0, 0)
    assert all(is_there(driven, one) for one in stored.values())
    kept_bytes = len(content_of(open_store(driven.settings), target))
    done = collect(driven)
    assert done.files == len(stored) + 2
    assert done.size_bytes == sum(one.size_bytes for one in (*stored.values(), left)) + kept_bytes
    assert not any(is_there(driven, one) for one in (*stored.values(), left))
    assert collect(driven) == Collected(looked_at=0, old=0, files=0, size_bytes=0)


def test_artifacts_of_a_running_build_are_kept_however_old_they_are(driven: DrivenFarm) -> None:
    ask(driven)
    driven.send()
    driven.succeed("1.fetch.1")
    driven.succeed("1.srpm.1", b"packed\n")
    left = orphan(driven)
    assert collect(driven).files == 1
    assert not is_there(driven, left)
    assert all(is_there(driven, one) for one in artifacts_of(driven, 1))


def test_the_record_of_a_target_is_kept_for_any_build_that_names_it(driven: DrivenFarm) -> None:
    driven.finish(ask(driven))
    going_on = ask(driven)
    target = driven.farm.build(going_on).target_sha256 or ""
    assert driven.farm.build(1).target_sha256 == target
    assert collect(driven).files > 0
    assert content_of(open_store(driven.settings), target)


def test_a_source_package_that_was_handed_in_is_kept_for_its_build(driven: DrivenFarm, tmp_path: Path) -> None:
    driven.farm.enqueue(srpm=make_rpm(tmp_path, arch="src"), target="demo", arches=["x86_64"])
    left = orphan(driven)
    assert collect(driven).files == 1
    assert not is_there(driven, left)


def test_nothing_is_removed_that_a_running_attempt_may_have_stored(driven: DrivenFarm) -> None:
    ask(driven)
    driven.send()
    left = orphan(driven)
    assert collect(driven).old == 0
    assert is_there(driven, left)


def test_packages_of_a_kept_version_stay(driven: DrivenFarm, tmp_path: Path) -> None:
    path = make_rpm(tmp_path, arch="src")
    stored = driven.stored(path.name, path.read_bytes(), ArtifactKind.SRPM, "hello-1-1.src")
    package = RepositoryPackage(path=path, sha256=stored.sha256, filename=path.name)
    open_repositories(driven.settings).add(NAME, [package])
    left = orphan(driven)
    done = collect(driven)
    assert (done.old, done.files) == (2, 1)
    assert is_there(driven, stored)
    assert not is_there(driven, left)


def test_a_dry_run_says_the_same_and_removes_nothing(driven: DrivenFarm) -> None:
    driven.finish(ask(driven))
    would = collect(driven, dry_run=True)
    assert would.files > 0
    assert all(is_there(driven, one) for one in artifacts_of(driven, 1))
    assert collect(driven) == would


def test_a_build_that_is_tried_again_in_that_moment_keeps_its_files(driven: DrivenFarm) -> None:
    """`unless` is asked again when the files are out of reach; whatever it says then holds."""
    left = orphan(driven)
    store = open_store(driven.settings)
    assert store.remove([*store.listed()], unless=lambda sha256s: sha256s) == []
    assert is_there(driven, left)


def test_a_file_that_is_stored_again_meanwhile_stays(driven: DrivenFarm) -> None:
    before, during = orphan(driven, b"one"), orphan(driven, b"two")
    store = open_store(driven.settings)
    listed = [*store.listed()]
    path = driven.settings.artifacts / before.sha256[:2] / before.sha256[2:4] / before.sha256
    os.utime(path, ns=(0, 0))
    orphan(driven, b"one")
    assert path.stat().st_mtime_ns > 0, "whoever stores it again makes it young"

    def unless(_: object) -> tuple[str, ...]:
        orphan(driven, b"two")
        return ()

    store.remove(listed, unless=unless)
    assert is_there(driven, during)


def test_files_go_back_when_it_cannot_be_said_whether_they_are_needed(driven: DrivenFarm) -> None:
    left = orphan(driven)
    store = open_store(driven.settings)

    def unless(_: object) -> tuple[str, ...]:
        raise OSError("the database is away")

    with pytest.raises(Exception, match="the database is away"):
        store.remove([*store.listed()], unless=unless)
    assert is_there(driven, left)


# --- caches ---------------------------------------------------------------------------------------------------------


def entry(path: Path, *, used_at: datetime = LONG_AGO, is_file: bool = False) -> Path:
    content = path if is_file else path / "content"
    content.parent.mkdir(parents=True)
    content.write_bytes(b"x" * 100_000)
    os.utime(path, (used_at.timestamp(), used_at.timestamp()))
    return path


def prune(cache: Path, limit_bytes: int, *, dry_run: bool = False) -> dict[str, int]:
    done = caches.prune(cache, limit_bytes=limit_bytes, dry_run=dry_run, say=lambda _: None)
    return {one.cache: one.entries for one in done}


def test_the_least_recently_used_of_all_caches_is_removed_first(tmp_path: Path) -> None:
    mirror = entry(tmp_path / "git" / ("a" * 64), used_at=LONG_AGO)
    download = entry(tmp_path / "downloads/sha256/abc", used_at=LONG_AGO + timedelta(hours=1), is_file=True)
    packages = entry(tmp_path / "dnf/demo-x86_64", used_at=LONG_AGO + timedelta(hours=2))
    assert prune(tmp_path, 10**9) == {"git": 0, "downloads": 0, "dnf": 0}
    assert prune(tmp_path, 250_000, dry_run=True) == {"git": 1, "downloads": 0, "dnf": 0}
    assert mirror.exists()
    assert prune(tmp_path, 250_000) == {"git": 1, "downloads": 0, "dnf": 0}
    assert (mirror.exists(), download.exists(), packages.exists()) == (False, True, True)
    assert prune(tmp_path, 0) == {"git": 0, "downloads": 1, "dnf": 1}
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_files_in_use_or_used_a_moment_ago_stay(tmp_path: Path) -> None:
    recent = entry(tmp_path / "git" / ("a" * 64), used_at=NOW)
    held = entry(tmp_path / "git" / ("b" * 64))
    filling = entry(tmp_path / "dnf/el9.1-x86_64")
    other = entry(tmp_path / "git/somebody's")
    with (
        held.with_name(f"{held.name}.lock").open("wb") as one,
        filling.with_name(f"{filling.name}.lock").open("wb") as two,
    ):
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(two, fcntl.LOCK_EX)
        assert prune(tmp_path, 0) == {"git": 0, "downloads": 0, "dnf": 0}
    assert all(path.exists() for path in (recent, held, filling, other))
    assert prune(tmp_path, 0) == {"git": 1, "downloads": 0, "dnf": 1}


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert prune(tmp_path / "none", 0) == {"git": 0, "downloads": 0, "dnf": 0}


def test_kept_folders_of_failed_steps_are_pruned_as_a_cache(tmp_path: Path) -> None:
    work = tmp_path / "work"
    old, new, running = (work / name for name in ("kept-step-a", "kept-step-b", "step-c"))
    for folder, days in ((old, 3), (new, 0), (running, 3)):
        entry(folder)
        at = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(folder, (at, at))
    done = caches.prune(tmp_path / "cache", limit_bytes=0, dry_run=False, say=lambda _: None, work=work)
    assert {one.cache: one.entries for one in done}["failed steps"] == 1
    assert (old.exists(), new.exists(), running.exists()) == (False, True, True)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(driven: DrivenFarm) -> None:
    driven.finish(ask(driven))
    typed = Typed(driven)
    cache = Settings.from_env(driven.env).cache
    entry(cache / "git" / ("a" * 64))
    said = typed("gc", "--older-than", "1", "--dry-run", FARM_CACHE_BYTES="0")
    assert said.exit_code == 0, said.output
    assert "artifacts: 0 of 4 would be removed (0 B); 0 older ones are still needed" in said.stdout
    assert "cache git: 1 entries would be removed" in said.stdout
    assert (cache / "git" / ("a" * 64)).exists()
    document = json.loads(typed.ok("gc", "--json"))["gc"]
    assert document["dry_run"] is False
    assert document["artifacts"] == {
        "older_than_days": 90, "looked_at": 4, "old": 0, "removed": 0, "removed_bytes": 0
    }  # fmt: skip
    assert [sorted(one) for one in document["caches"]] == [["bytes", "cache", "removed", "removed_bytes"]] * 4


def test_caches_are_pruned_without_a_farm_and_zero_days_keep_all(driven: DrivenFarm, tmp_path: Path) -> None:
    typed = Typed(driven)
    alone = typed("gc", "--caches-only", "--json", FARM_DATA=str(tmp_path / "other"))
    assert json.loads(alone.stdout)["gc"]["artifacts"] is None
    assert "all are kept" in typed("gc", FARM_KEEP_ARTIFACTS_DAYS="0").stdout
