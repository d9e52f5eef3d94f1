"""Supervises the processes of an embedded farm: starts them, starts dead ones again, ends them.

Owns processes and the names of their logs. Not their tasks, nor the order in which they start and end (embedded.py).
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from plumbum import CommandNotFound, local
from plumbum.machines.local import LocalCommand, LocalMachine

from farm.errors import FarmNotRunning, HostUnfit

_LOOK_EVERY_S = 0.2
_FIRST_PAUSE_S = 0.5
_MOST_DEATHS = 5
_DEATHS_WITHIN_S = 60.0
_TAIL_BYTES = 8192

Say = Callable[[str], None]

#: The umask of all members, instead of the caller's: recipes and repositories get it, and private files are in closed
#: folders.
_UMASK = 0o022


class _BareMachine(LocalMachine):  # type: ignore[misc] # plumbum has no types
    """Plumbum completes the environment of every command with the caller's; with this machine it adds nothing."""

    env: ClassVar[dict[str, str]] = {}


class _Command(LocalCommand):  # type: ignore[misc]
    machine = _BareMachine()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process of the farm; its log has its name. `popen` is a subprocess.Popen."""

    name: str
    popen: Any
    log: Path

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def end(self) -> str:
        """One line: how it ended, and the last line of its log."""
        code = self.popen.returncode
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with {code}"
        return f"{self.name} {how}: {_last_line(self.log)} (log: {self.log})"

    def send(self, number: signal.Signals) -> None:
        if self.is_running:
            self.popen.send_signal(number)

    def wait(self, timeout_s: float | None) -> bool:
        """True when it ended in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.is_running:
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@dataclass(kw_only=True)
class _Place:
    """The process to run under a name, and the history of its earlier runs."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    member: Member
    is_wanted: bool = True
    is_vital: bool = True
    restart_at: float | None = None
    deaths: list[float] = field(default_factory=list)


class Members:
    """One process for each name. After `watch` a dead process is started again; before that, its death is an error.

    The children of a member must end with it by themselves, as the pool of a Celery worker does (PR_SET_PDEATHSIG).
    """

    def __init__(self, logs: Path, *, warn: Say, first_pause_s: float = _FIRST_PAUSE_S) -> None:
        self._logs = logs
        self._warn = warn
        self._first_pause_s = first_pause_s
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._error: FarmNotRunning | None = None
        self._watcher: threading.Thread | None = None

    def start(self, name: str, argv: list[str], env: Mapping[str, str], *, is_vital: bool = True) -> None:
        """Start a process. One that is not vital and dies too often is not started again.

        Raises HostUnfit when setpriv is not installed, OSError when the log cannot be written.
        """
        member = self._spawn(name, argv, env)
        with self._lock:
            self._places[name] = _Place(name=name, argv=argv, env=env, member=member, is_vital=is_vital)

    def _spawn(self, name: str, argv: list[str], env: Mapping[str, str]) -> Member:
        log = self._logs / f"{name}.log"
        # If this process is killed, the kernel kills its children too; setpriv asks for that before it becomes the
        # member. Not TERM: a worker would drain, and then try to report to a broker that was killed too.
        try:
            setpriv = _Command(local.which("setpriv"))
        except CommandNotFound as error:
            raise HostUnfit("setpriv is not on PATH; install util-linux") from error
        with log.open("ab") as file:
            popen = setpriv["--pdeathsig", "KILL", "--", argv].popen(
                stdin=None, stdout=file, stderr=file, env=env, start_new_session=True, cwd="/", umask=_UMASK
            )
        return Member(name=name, popen=popen, log=log)

    @property
    def processes(self) -> Mapping[str, int]:
        """Process ids by name."""
        with self._lock:
            return {name: place.member.popen.pid for name, place in self._places.items()}

    # --- watch --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises FarmNotRunning, with the process and its log, when a process that should run has ended for good."""
        if self._error is not None:
            raise self._error
        if self._watcher is not None and not self._watcher.is_alive() and not self._is_closed.is_set():
            raise FarmNotRunning("the process supervisor has stopped; restart the farm")
        if self._watcher is None:
            for place in self._places.values():
                if not place.member.is_running:
                    raise FarmNotRunning(place.member.end)

    def watch(self) -> None:
        """Start dead processes again from now on."""
        # One thread until `close`: the kernel takes the end of the thread that started a process for the parent's end.
        self._watcher = threading.Thread(target=self._watch, name="members", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._is_closed.wait(_LOOK_EVERY_S):
            with self._lock:
                for place in self._places.values():
                    if place.is_wanted and self._error is None:
                        self._look_at(place)

    def _look_at(self, place: _Place) -> None:
        if place.restart_at is None:
            if not place.member.is_running:
                self._died(place, place.member.end)
        elif time.monotonic() >= place.restart_at:
            place.restart_at = None
            try:
                place.member = self._spawn(place.name, place.argv, place.env)
            except (OSError, HostUnfit) as error:
                self._died(place, f"{place.name} could not be started: {error}")

    def _died(self, place: _Place, how: str) -> None:
        now = time.monotonic()
        place.deaths = [*(at for at in place.deaths if now - at < _DEATHS_WITHIN_S), now]
        if len(place.deaths) >= _MOST_DEATHS and not place.is_vital:
            place.is_wanted = False
            with suppress(Exception, SystemExit):
                self._warn(f"{how}; that was {_MOST_DEATHS} times, and the farm goes on without it")
            return
        if len(place.deaths) >= _MOST_DEATHS:
            self._error = FarmNotRunning(f"{how}; that was {_MOST_DEATHS} times within {_DEATHS_WITHIN_S:g} s")
            return
        pause_s = self._first_pause_s * 2 ** (len(place.deaths) - 1)
        place.restart_at = now + pause_s
        # The reader of this output may be gone, or the disk full; the farm and this thread must go on.
        with suppress(Exception, SystemExit):
            self._warn(f"{how}; it is started again in {pause_s:g} s")

    # --- end ----------------------------------------------------------------------------------------------------

    def stop_restarting(self, names: Iterable[str]) -> list[Member]:
        """Do not start these processes again. Returns the members with these names."""
        found = []
        with self._lock:
            for name in names:
                if name in self._places:
                    self._places[name].is_wanted = False
                    found.append(self._places[name].member)
        return found

    def close(self) -> None:
        """Forget all members, and stop watching. Call it when all have ended."""
        self._is_closed.set()
        if self._watcher is not None:
            self._watcher.join()
        self._places.clear()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a realtime signal
        return f"signal {number}"


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    return lines[-1] if lines else "it wrote nothing"
