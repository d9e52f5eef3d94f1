"""A real Pulp on loopback, for tests, demo and bench: `python -m deploy.pulp.local up --data DIR`.

Starts, watches and stops PostgreSQL, Pulp's API, its content app and its workers. Not for production: its PostgreSQL
never waits for the disk, and all its processes end with the process that started them.
"""

import argparse
import fcntl
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

from deploy.demo.progress import say as say_line
from deploy.pulp import home, postgresql
from deploy.pulp.errors import PulpError
from deploy.pulp.home import ADMIN, Home
from deploy.pulp.processes import Family, Plan, until

API, CONTENT = "api", "content"
_READY_WITHIN_S = 120.0
_ASK_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class PulpConfig:
    """`data` is this Pulp's own folder, `cache` the folder of shared files: its packages, an empty database.

    `workers` run tasks, `api_processes` answer requests. `settings` is added to Pulp's settings.py.
    """

    data: Path
    cache: Path
    workers: int = 2
    api_processes: int = 2
    settings: Mapping[str, object] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None


class LocalPulp:
    """A Pulp for the time of a `with` block, or between `start` and `stop`. Its processes die with this one."""

    def __init__(self, config: PulpConfig) -> None:
        self.config = config
        self._home: Home | None = None
        self._family = Family()
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- where it is --------------------------------------------------------------------------------------------

    @property
    def home(self) -> Home:
        """Raises PulpError before the first start."""
        if self._home is None:
            raise PulpError("this Pulp was not started yet; call start()")
        return self._home

    @property
    def url(self) -> str:
        """The API's base URL, without a path."""
        return f"http://127.0.0.1:{self.home.ports()[0]}"

    @property
    def content_url(self) -> str:
        """The URL before a distribution's base path, with a slash at the end."""
        return f"http://127.0.0.1:{self.home.ports()[1]}/pulp/content/"

    @property
    def username(self) -> str:
        return ADMIN

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    @property
    def password_file(self) -> Path:
        return self.home.password_file

    # --- start and stop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all processes, and wait until they are usable. Raises PulpError for one that ended, with its log."""
        self._lock = _hold(self.config.data)
        say = self.config.say
        self._home = home.make(self.config.data.absolute(), self.config.cache.absolute(), self.config.settings, say=say)
        self._family = Family()
        say("starting PostgreSQL")
        home.start_postgresql(self._family, self.home.cluster)
        self.home.set_admin_password()
        say(f"starting Pulp: its API, its content app and {self.config.workers} workers")
        for plan in self._plans():
            self._family.start(plan)
        self.wait_ready()

    def stop(self) -> None:
        """Stop workers and apps, then PostgreSQL. Safe to repeat."""
        self._family.stop([name for name in self._family.watched if name != postgresql.NAME])
        self._family.stop([postgresql.NAME])
        self._family.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def start_one(self, name: str) -> None:
        """Start a process that was killed or stopped, or ended by itself, and wait for it. Raises PulpError."""
        if name == postgresql.NAME:
            home.start_postgresql(self._family, self.home.cluster)
            return
        plans = {plan.name: plan for plan in self._plans()}
        if name not in plans:
            raise PulpError(f"{name!r} is none of {', '.join([postgresql.NAME, *plans])}")
        self._family.start(plans[name])
        until(lambda: self._is_up(name), _READY_WITHIN_S, f"{name}; its log is {plans[name].log}")

    def revive(self) -> None:
        """Start all processes that do not run, and wait until Pulp is ready.

        Without its database Pulp's processes end sooner or later, so they are started again with it.
        """
        if not self._family.is_running(postgresql.NAME):
            self._family.stop(self._family.watched)
            home.start_postgresql(self._family, self.home.cluster)
        for plan in self._plans():
            if not self._family.is_running(plan.name):
                self._family.start(plan)
        self.wait_ready()

    def stop_one(self, name: str) -> None:
        """Ask it to end, and wait; after ten seconds it is killed."""
        self._family.stop([name])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process and its children; returns after their end when it is KILL."""
        self._family.send(name, number)

    # --- look at it ---------------------------------------------------------------------------------------------

    @property
    def processes(self) -> Mapping[str, int]:
        """Ids of the running processes by name: `postgresql`, `api`, `content`, `worker-1` and so on."""
        return self._family.pids

    def is_ready(self) -> bool:
        """Whether all of its processes run and are usable."""
        names = [plan.name for plan in self._plans()]
        return all(self._family.is_running(name) for name in [postgresql.NAME, *names]) and self._are_up(names)

    def wait_ready(self) -> None:
        """Raises PulpError at a deadline, or when a process ended by itself."""

        def ready() -> bool:
            self._family.check()
            return self.is_ready()

        until(ready, _READY_WITHIN_S, f"Pulp to be ready; the logs are in {self.home.data / 'log'}")

    def manage(self, *words: str) -> str:
        """The output of a command of `pulpcore-manager`. Raises PulpError."""
        return self.home.manage(*words)

    def _is_up(self, name: str) -> bool:
        self._family.check(name)
        return self._are_up([name])

    def _are_up(self, names: list[str]) -> bool:
        try:
            if CONTENT in names:
                httpx.get(self.content_url, timeout=_ASK_TIMEOUT_S)
            if names == [CONTENT]:
                return True
            status = httpx.get(f"{self.url}/pulp/api/v3/status/", timeout=_ASK_TIMEOUT_S)
        except httpx.TransportError:
            return False
        if status.status_code != httpx.codes.OK:
            return False
        # Workers register as pid@host. One that was killed stays listed for a while, so the ids are compared.
        online = {worker["name"].partition("@")[0] for worker in status.json()["online_workers"]}
        wanted = {str(pid) for name, pid in self.processes.items() if name in names and name.startswith("worker-")}
        return wanted <= online

    def _plans(self) -> list[Plan]:
        api, content = self.home.ports()
        # Without this option gunicorn puts a socket into the home folder.
        quiet = ["--no-control-socket", "--log-level", "warning"]
        listen = [*quiet, "--bind", f"127.0.0.1:{api}", "--workers", str(self.config.api_processes), "--preload"]
        hand_out = [*quiet, "--bind", f"127.0.0.1:{content}", "--workers", "1"]
        plans = [self._plan(API, "pulpcore-api", *listen), self._plan(CONTENT, "pulpcore-content", *hand_out)]
        return plans + [self._plan(f"worker-{n + 1}", "pulpcore-worker") for n in range(self.config.workers)]

    def _plan(self, name: str, program: str, *options: str) -> Plan:
        binaries = self.home.venv / "bin"
        launch = Path(__file__).with_name("launch.py")
        return Plan(
            name=name,
            argv=[str(binaries / "python"), str(launch), str(binaries / program), *options],
            env=self.home.environment,
            cwd=self.home.data / "work",
            log=self.home.data / "log" / f"{name}.log",
        )


def _hold(data: Path) -> IO[str]:
    data.mkdir(parents=True, exist_ok=True)
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise PulpError(f"another process runs a Pulp in {data}; stop it or use another folder") from error
    return lock


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.pulp.local", description=__doc__)
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start a Pulp, and stop it at Ctrl-C")
    up.add_argument("--data", type=Path, required=True, help="its folder; kept, and used again by the next start")
    up.add_argument("--cache", type=Path, help="for its packages and an empty database; DATA/cache when not given")
    up.add_argument("--workers", type=int, default=2, help="how many tasks it runs at once (2)")
    given = parser.parse_args()
    config = PulpConfig(data=given.data, cache=given.cache or given.data / "cache", workers=given.workers, say=say_line)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with LocalPulp(config) as pulp:
            say_line(f"API:      {pulp.url}/pulp/api/v3/\ncontent:  {pulp.content_url}")
            say_line(f"user:     {pulp.username}\npassword: in {pulp.password_file}")
            say_line(f"logs:     {pulp.home.data / 'log'}\nCtrl-C stops it")
            ended.wait()
            say_line("stopping Pulp")
    except PulpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
