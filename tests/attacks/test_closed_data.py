"""Another user of the machine can read a farm's repositories, and nothing else of its data."""

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import BadSettings
from farm.permissions import close_data
from farm.store.store import Store
from farm.targets.load import find_target
from tests.line import Line

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


def as_nobody(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*_AS_NOBODY, *argv], capture_output=True, text=True, check=False)


def readable(paths: Sequence[Path]) -> list[str]:
    """The paths that the user `nobody` can read, as tested by a process of that user."""
    script = 'for path; do test -r "$path" && echo "$path"; done; true'
    found: list[str] = []
    for first in range(0, len(paths), 500):
        found += as_nobody("sh", "-c", script, "sh", *map(str, paths[first : first + 500])).stdout.split("\n")
    return [path for path in found if path]


def below(folder: Path) -> list[Path]:
    return [Path(path, name) for path, folders, files in os.walk(folder) for name in (*folders, *files)]


def open_way(path: Path) -> None:
    """pytest keeps others out of its own folders."""
    for above in path.parents:
        if above != Path("/") and not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(above.stat().st_mode | 0o011)


def test_an_open_farm_of_an_older_version_is_closed_and_says_so(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    for name in ("artifacts", "work", "templates", "repositories"):
        (settings.data / name).mkdir(parents=True)
        (settings.data / name).chmod(0o755)
    (settings.data / "farm.db").write_bytes(b"")
    (settings.data / "farm.db").chmod(0o644)
    settings.data.chmod(0o755)
    said = close_data(settings)
    assert any(f"closed {settings.data} to other users: its mode was 0755, and is 0711" in line for line in said)
    assert any("farm.db" in line for line in said)
    assert close_data(settings) == ()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in settings.data.iterdir()}
    assert modes["repositories"] == 0o755
    assert all(not mode & 0o066 for name, mode in modes.items() if name != "repositories")


def test_a_folder_that_belongs_to_everybody_is_left_alone(tmp_path: Path) -> None:
    """FARM_DATA=/tmp is unwise, and no reason to take it from the others."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    close_data(Settings(data=shared))
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


def test_another_user_cannot_read_the_database_and_is_told_its_owner(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    close_data(settings)
    open_way(settings.data / "farm.db")
    before = os.umask(0o022)
    store = Store.open(settings.database, create=True)
    try:
        files = [path for path in settings.data.iterdir() if path.name.startswith("farm.db")]
        assert [path for path in files if path.stat().st_mode & 0o077] == []
        assert readable(files) == []
    finally:
        os.umask(before)
        store.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            Store.open(settings.database)
        except BadSettings as error:
            code = 0 if "only root may use" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.live
def test_another_user_reads_nothing_of_a_real_build_but_repositories(tmp_path: Path, demo_distribution: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "data")})
    close_data(settings)
    (settings.data / "demo").mkdir()
    (settings.data / "demo/distribution").symlink_to(demo_distribution)
    line = Line(settings, find_target(settings, "demo"), tmp_path)
    assert line.git("hello-c").outcome.is_success
    open_way(line.settings.data / "work")
    paths = [path for path in below(line.settings.data) if not path.is_symlink()]
    public = [path for path in paths if path.is_relative_to(line.settings.repositories_dir)]
    public.append(settings.data / "demo")
    assert len(paths) > 1000, "templates and artifacts are there"
    assert readable([path for path in paths if path not in set(public)]) == []
    assert as_nobody("ls", str(line.settings.data)).returncode != 0
