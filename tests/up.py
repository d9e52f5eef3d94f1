"""Runs `farm up` as a process of a test: reads its output, finds its processes and leftovers, and kills all of it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import createrepo_c

from farm.config import Settings
from tests.leftovers import inside
from tests.waiting import until

FARM = str(Path(sys.executable).parent / "farm")
BASE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1", "FARM_SERVER_PORT": "0"}
_CGROUP = re.compile(r"farm-\d+-(\d+)-\d+-\d+")


class Up:
    """A running `farm up`. `lines` is its output so far, on both streams."""

    def __init__(self, process: "subprocess.Popen[str]", settings: Settings) -> None:
        self.process = process
        self.settings = settings
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(line.rstrip() for line in self.process.stdout)

    def says(self, words: str, within_s: float = 60.0) -> str:
        """The first line with these words, as soon as there is one."""
        deadline = time.monotonic() + within_s
        while not (found := [line for line in list(self.lines) if words in line]):
            is_over = self.process.poll() is not None and not self._reader.is_alive()
            assert not is_over, f"farm up ended without saying {words!r}: {self.lines}"
            assert time.monotonic() < deadline, f"waited {within_s:g} s for {words!r}: {self.lines}"
            time.sleep(0.02)
        return found[0]

    def pid(self, words: str) -> int:
        """The process that farm up started itself and whose command line has these words."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        for pid in [int(word) for path in children for word in path.read_text().split()]:
            with suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                    return pid
        raise AssertionError(f"farm up has no process with {words!r}")

    def kill(self, words: str) -> int:
        pid = self.pid(words)
        os.kill(pid, signal.SIGKILL)
        return pid

    def drain(self, within_s: float = 60.0) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(within_s) == 0, self.lines


@contextmanager
def farm_up(data: Path, *words: str, env: Mapping[str, str] = BASE, database_url: str = "") -> Iterator[Up]:
    """From the moment that it says that it is up. Nothing of it is left after the block."""
    argv = [FARM, "up", "--data", str(data), *words]
    at = {"FARM_DATABASE_URL": database_url} if database_url else {}
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**BASE, **env, **at},
        stdin=subprocess.DEVNULL,
    ) as process:
        up = Up(process, Settings.from_env({"FARM_DATA": str(data), **at}))
        try:
            up.says("The farm is up")
            yield up
        finally:
            kill_all(up.settings)


def run_farm(settings: Settings, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command line as a process."""
    env = {**BASE, "FARM_DATA": str(settings.data)}
    return subprocess.run(
        [FARM, *words], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )


# --- processes and leftovers -------------------------------------------------------------------------------------


def processes(settings: Settings) -> list[int]:
    """All processes of the farm: their arguments or environment name its data, or they are in one of its roots."""
    found = set(inside(settings))
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if bytes(settings.data) in words:
                found.add(int(folder.name))
    return sorted(found - {os.getpid()})


def kill_all(settings: Settings) -> None:
    """SIGKILL to everything at once, and again to whatever slipped through by being born just then."""
    until(lambda: not _kill(processes(settings)), "the end of all of the farm's processes", within_s=20)


def _kill(pids: Sequence[int]) -> bool:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def leftovers(settings: Settings) -> list[str]:
    """Mounts and work folders, and control groups that were made since then and whose makers are dead."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(settings.data) in line]
    found += [str(path) for path in settings.work.glob("*")]
    since = (settings.data / "demo").stat().st_mtime_ns
    for folder, names, _ in os.walk("/sys/fs/cgroup"):  # the walk goes on if one of them is removed meanwhile
        for name in names:
            made = _CGROUP.fullmatch(name)
            if made and not Path(f"/proc/{made[1]}").exists() and _made_at(Path(folder, name)) > since:
                found.append(str(Path(folder, name)))
    return found


def _made_at(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def published(settings: Settings, *, target: str = "demo", arch: str = "x86_64") -> list[str]:
    """File names of the packages that the newest version of a directory repository lists, as often as it does."""
    current = settings.repositories_dir / target / arch / "os/current"
    packages = createrepo_c.RepositoryReader.from_path(str(current)).iter_packages()
    return sorted(package.location_href.rpartition("/")[2] for package in packages)
