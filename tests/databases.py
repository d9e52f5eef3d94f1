"""Databases of a test's own: a SQLite file with the current schema, and a throw-away PostgreSQL on a unix socket.

Owns the server's life, to a SIGKILL and the start after it. The fixtures are in conftest.py.
"""

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from farm.store.database import make_engine
from farm.store.store import Store

# Data that is not on the disk is lost with the machine, which tests do not kill.
_FAST = "-c fsync=off -c full_page_writes=off -c listen_addresses="
# Transactions of the last fifth of a second are lost with the server.
_FASTER = "-c synchronous_commit=off"


@functools.lru_cache(maxsize=1)
def sqlite_template() -> bytes:
    """A SQLite database with the current schema: migrating takes longer than most tests, so it is done once."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "farm.db"
        Store.open(f"sqlite:///{path}", create=True).close()
        return path.read_bytes()


class NoPostgresql(Exception):
    """There is no PostgreSQL on this machine."""


class Cluster:
    """One server, run by an ordinary user: PostgreSQL refuses to run as root. Use `cluster`."""

    def __init__(self, folder: Path, *, is_killed: bool) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
        if not found[-1].is_file():
            raise NoPostgresql("no PostgreSQL here: install it or set FARM_TEST_POSTGRESQL")
        self._binaries = found[-1].parent
        self._folder = folder
        self._options = f"{_FAST} -k {folder}" if is_killed else f"{_FAST} {_FASTER} -k {folder}"
        self.url = f"postgresql://farm@/postgres?host={folder}"
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def make(self) -> None:
        self._folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "farm", "-A", "trust", "--no-sync")

    def start(self) -> None:
        """Returns when it answers."""
        self._control("-l", str(self._folder / "log"), "-o", self._options, "start")

    def stop(self) -> None:
        if (self._folder / "data/postmaster.pid").exists():
            self._control("-m", "immediate", "stop")

    def kill(self) -> None:
        """Send SIGKILL to all of its processes; committed transactions are kept. It can be started again."""
        lock = self._folder / "data/postmaster.pid"
        main = int(lock.read_text().split()[0])
        family = [main, *(int(word) for word in Path(f"/proc/{main}/task/{main}/children").read_text().split())]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(_is_alive(pid) for pid in family):
            assert time.monotonic() < deadline, "PostgreSQL outlived SIGKILL"
            time.sleep(0.01)
        # If no process reaps the dead server, the next one would think from its process id that it is alive.
        for path in (lock, *self._folder.glob(".s.PGSQL.*")):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", *words)

    def _run(self, program: str, *words: str) -> None:
        as_user = [f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups", "--"]
        before = ["setpriv", *as_user] if os.geteuid() == 0 else []
        argv = [*before, str(self._binaries / program), *words]
        subprocess.run(argv, check=True, capture_output=True, cwd=self._folder, stdin=subprocess.DEVNULL, timeout=60)


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextmanager
def cluster(name: str, *, is_killed: bool = False) -> Iterator[Cluster]:
    """A server for the time of the block; with `is_killed` one that may be. Raises NoPostgresql."""
    server = Cluster(
        Path(f"/tmp/farm-pg-{name}-{os.getpid()}"), is_killed=is_killed
    )  # short: a socket's path has a limit
    server.make()
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


@contextmanager
def administration(server: str) -> Iterator[sa.Connection]:
    engine = make_engine(server).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def database(server: str, name: str) -> str:
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


@contextmanager
def new_database(server: str, *, template: str | None = None) -> Iterator[str]:
    """The URL of a database that is dropped after the block; a copy of `template` where one is named."""
    name = f"farm_{os.urandom(4).hex()}"
    how = f" TEMPLATE {template} STRATEGY file_copy" if template else ""
    with administration(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}{how}")
        yield database(server, name)
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
