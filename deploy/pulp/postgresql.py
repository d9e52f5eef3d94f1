"""A private PostgreSQL for a local Pulp: its own cluster, on a unix socket only, as an ordinary user.

Not for data that must survive a power cut: it never waits for the disk.
"""

import os
import pwd
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from deploy.pulp.errors import PulpError
from deploy.pulp.processes import Plan, run

NAME = "postgresql"
_SOCKET_FOLDER_MAX = 107 - len("/.s.PGSQL.5432")  # the kernel's limit on a unix socket's path
_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=100", "listen_addresses=")
_WITHIN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """`data` is PostgreSQL's own folder, `socket` the folder of its socket, `log` its log file."""

    data: Path
    socket: Path
    log: Path

    def prepare(self) -> None:
        """Give the folders to the user that it runs as. Raises PulpError for a place that this user cannot reach."""
        if len(str(self.socket)) > _SOCKET_FOLDER_MAX:
            raise PulpError(f"{str(self.socket)!r} is too long for a unix socket; use a shorter path")
        for folder in (self.data, self.socket):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        self.log.touch()
        if os.geteuid() == 0:
            user = _user()
            for place in (self.data, self.socket, self.log):
                shutil.chown(place, user, user)
            closed = [parent for parent in self.data.parents if not parent.stat().st_mode & 0o001]
            if closed:
                raise PulpError(
                    f"PostgreSQL runs as {user!r}, which cannot enter {closed[0]}; `chmod o+x {closed[0]}`, or "
                    "use another folder"
                )

    def initialise(self) -> None:
        """Make a cluster, owned by the database user `pulp`, who needs no password in its socket's folder."""
        argv = [str(binaries() / "initdb"), "-D", str(self.data), "-U", "pulp", "-A", "trust", "-E", "UTF8"]
        run([*_as_user(), *argv, "--locale=C.UTF-8", "--no-sync"], env=_ENV, cwd=Path("/"), timeout_s=_WITHIN_S)

    def plan(self) -> Plan:
        options = [word for setting in _QUICK for word in ("-c", setting)]
        argv = [*_as_user(), str(binaries() / "postgres"), "-D", str(self.data), "-k", str(self.socket), *options]
        # INT is its fast shutdown: TERM would wait for all clients to leave.
        return Plan(
            name=NAME,
            argv=argv,
            env=_ENV,
            cwd=self.socket,
            log=self.log,
            stop_signal=signal.SIGINT,
            folder=self.data,
        )

    def answers(self) -> bool:
        argv = [str(binaries() / "pg_isready"), "-q", "-h", str(self.socket), "-U", "pulp", "-d", "postgres"]
        try:
            run(argv, env=_ENV, cwd=Path("/"), timeout_s=_WITHIN_S)
        except PulpError:
            return False
        return True

    def sql(self, statement: str, *, database: str = "pulp") -> str:
        """The output of psql, unaligned and without headings. Raises PulpError."""
        options = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket), "-U", "pulp"]
        argv = [str(binaries() / "psql"), *options, "-d", database]
        return run(argv, env=_ENV, cwd=Path("/"), timeout_s=_WITHIN_S, stdin=statement)


def binaries() -> Path:
    """The folder of the newest PostgreSQL server on this host. Raises PulpError when there is none."""
    versioned = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    places = [*(str(path) for path in reversed(versioned)), shutil.which("initdb", path=_ENV["PATH"])]
    for place in places:
        if place:
            return Path(place).parent
    raise PulpError("no PostgreSQL server on this host: run deploy/bootstrap postgresql")


def version() -> str:
    """`15`: a cluster can only be used by the major version that made it."""
    words = run([str(binaries() / "postgres"), "--version"], env=_ENV, cwd=Path("/"), timeout_s=_WITHIN_S).split()
    return words[2].partition(".")[0]


def _user() -> str:
    """PostgreSQL's user, which the packages make on every distribution. Raises PulpError if it does not exist."""
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError as error:
        raise PulpError("this host has no user 'postgres': run deploy/bootstrap postgresql") from error


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(_user())
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig", "KILL"]
