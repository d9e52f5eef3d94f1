"""Files that killed tools leave in a worker's caches do not stop later attempts, and are removed."""

import os
import time
from pathlib import Path

import pytest

from farm.config import Settings
from farm.model.source import Source, SourceKind
from farm.targets.load import find_target
from tests.bench import room, tiny
from tests.fetching import Answer, Desk, http_server, put, repository, spec
from tests.packages import commit_all
from workers.core.context import Ended

pytestmark = pytest.mark.live


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "hello", {"hello.spec": spec()})


def _mirror(desk: Desk) -> Path:
    (mirror,) = (path for path in (desk.settings.cache / "git").iterdir() if path.is_dir())
    return mirror


def test_locks_of_a_killed_git_do_not_refuse_the_next_fetch(desk: Desk, repo: Path) -> None:
    desk.git(repo, ref="main")
    put(repo, {"more": b"more"})
    commit = commit_all(repo, "More")
    left = ["shallow.lock", "packed-refs.lock", f"refs/farm/{commit}.lock", "objects/pack/tmp_pack_Xy12Zz"]
    for name in left:
        (_mirror(desk) / name).write_bytes(b"")
    assert desk.git(repo, ref="main").commit == commit
    assert [name for name in left if (_mirror(desk) / name).exists()] == []


def test_an_incomplete_mirror_is_made_again(desk: Desk, repo: Path) -> None:
    """Its attributes keep the tree's own from changing files: without them nothing is fetched into it."""
    desk.git(repo, ref="main")
    attributes = _mirror(desk) / "info/attributes"
    expected = attributes.read_text()
    attributes.unlink()
    put(repo, {"more": b"more"})
    commit = commit_all(repo, "More")
    assert desk.git(repo, ref="main").commit == commit
    assert attributes.read_text() == expected


def test_half_a_download_of_a_dead_worker_goes_and_that_of_a_living_one_stays(desk: Desk) -> None:
    folder = desk.settings.cache / "downloads"
    folder.mkdir(parents=True)
    for name, age_s in (("dead.part", 25 * 3600), ("alive.part", 60)):
        (folder / name).write_bytes(b"half of it")
        at = time.time() - age_s
        os.utime(folder / name, (at, at))
    with http_server() as server:
        server.answers["/hello.src.rpm"] = Answer(b"not there", 404)
        with pytest.raises(Ended):
            desk.fetch(Source(kind=SourceKind.SRPM, url=server.url("/hello.src.rpm")))
    assert [path.name for path in folder.glob("*.part")] == ["alive.part"]


def test_the_lock_of_a_killed_dnf_is_not_waited_for(tmp_path: Path, demo_distribution: Path) -> None:
    """It has a pid of a sandbox that is gone; in the next sandbox another process has that pid."""
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "distribution").symlink_to(demo_distribution)
    settings = Settings.from_env({"FARM_DATA": str(tmp_path)})
    cache = settings.cache / "dnf" / "demo-x86_64"
    cache.mkdir(parents=True)
    for name in ("metadata_lock.pid", "download_lock.pid"):
        (cache / name).write_text("1")
    room.build(settings, find_target(settings, "demo"), tiny.make_trivial_c(tmp_path / "srpms"))
    assert list(cache.glob("*_lock.pid")) == []
