"""A PostgreSQL of a test's own: a throw-away cluster on a unix socket, and databases in it.

Owns the server's life, to a SIGKILL and the start after it. The fixtures are in conftest.py.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from farm.store.database import make_engine

_FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses="


class NoPostgresql(Exception):
    """There is no PostgreSQL on this machine."""


class Cluster:
    """One server, run by an ordinary user: PostgreSQL refuses to run as root. Use `cluster`."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
        if not found[-1].is_file():
            raise NoPostgresql("no PostgreSQL here: install it or set FARM_TEST_POSTGRESQL")
        self._binaries = found[-1].parent
        self._folder = folder
        self.url = f"postgresql://farm@/postgres?host={folder}"
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def make(self) -> None:
        self._folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "farm", "-A", "trust", "--no-sync")

    def start(self) -> None:
        """Returns when it answers."""
        self._control("-l", str(self._folder / "log"), "-o", f"{_FAST} -k {self._folder}", "start")

    def stop(self) -> None:
        if (self._folder / "data/postmaster.pid").exists():
            self._control("-m", "immediate", "stop")

    def kill(self) -> None:
        """SIGKILL to its main process. Its children find out and end; what was committed is kept."""
        os.kill(int((self._folder / "data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", *words)

    def _run(self, program: str, *words: str) -> None:
        as_user = [f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups", "--"]
        before = ["setpriv", *as_user] if os.geteuid() == 0 else []
        argv = [*before, str(self._binaries / program), *words]
        subprocess.run(argv, check=True, capture_output=True, cwd=self._folder, stdin=subprocess.DEVNULL, timeout=60)


@contextmanager
def cluster(name: str) -> Iterator[Cluster]:
    """A server for the time of the block. Raises NoPostgresql."""
    server = Cluster(Path(f"/tmp/farm-pg-{name}-{os.getpid()}"))  # short: a socket's path has a limit
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
