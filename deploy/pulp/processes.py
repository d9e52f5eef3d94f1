"""Pulp's processes as children of this one: started, watched, and ended by process id only.

Owns their lifetime, which always ends with this process's. Knows nothing of their work.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbum import CommandNotFound, local

from deploy.pulp.errors import PulpError

_POLL_S = 0.02
_STOP_WITHIN_S = 10.0
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parameters of one process. `stop_signal` asks it to end; `folder`, if given, is the working folder of its own
    children, by which children that outlived it are found."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    folder: Path | None = None


class Family:
    """Processes by name. Each leads a process group of its own, and dies when this process does."""

    def __init__(self, *, stop_within_s: float = _STOP_WITHIN_S) -> None:
        """`stop_within_s` is the time that a process may take to end before it is killed."""
        self._stop_within_s = stop_within_s
        # The kernel ends a child with the thread that started it, so that thread has to live as long as the family.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pulp-starter")
        self._running: dict[str, tuple[Plan, Any]] = {}

    def start(self, plan: Plan) -> None:
        """Raises PulpError when it runs already."""
        if self.is_running(plan.name):
            raise PulpError(f"{plan.name} runs already, as process {self.pids[plan.name]}; stop it first")
        self._running[plan.name] = plan, self._starter.submit(_popen, plan).result()

    def is_running(self, name: str) -> bool:
        return name in self._running and self._running[name][1].poll() is None

    @property
    def pids(self) -> dict[str, int]:
        """Ids of the running processes, by name."""
        return {name: popen.pid for name, (_, popen) in self._running.items() if popen.poll() is None}

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of the processes that were started, and neither stopped nor killed since."""
        return tuple(self._running)

    def check(self, only: str = "") -> None:
        """Raises PulpError, with its last line and log, for a process that ended by itself."""
        for name, (plan, popen) in self._running.items():
            if popen.poll() is not None and only in ("", name):
                raise PulpError(f"{plan.name} ended with {popen.returncode}: {last_line(plan.log)} (log: {plan.log})")

    def send(self, name: str, number: signal.Signals) -> None:
        """Signal the process and its children. After KILL, wait for its end, and watch it no longer.

        Raises PulpError when it does not run.
        """
        if not self.is_running(name):
            raise PulpError(f"{name} does not run; running are {', '.join(self.pids) or 'none'}")
        plan, popen = self._running[name]
        os.killpg(popen.pid, number)
        if number is signal.SIGKILL:
            popen.wait()
            del self._running[name]
            until(lambda: not _left(plan, popen.pid), _STOP_WITHIN_S, f"the children of {name} to go")

    def stop(self, names: Sequence[str]) -> None:
        """Ask all of them to end, then wait; kill those that take too long. Safe to repeat."""
        chosen = [(name, *self._running[name]) for name in names if name in self._running]
        for _, plan, popen in chosen:
            if popen.poll() is None:
                popen.send_signal(signal.SIGCONT)
                popen.send_signal(plan.stop_signal)
        deadline = time.monotonic() + self._stop_within_s
        for name, plan, popen in chosen:
            while popen.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if popen.poll() is None or _left(plan, popen.pid):
                _kill_group(popen.pid)
                popen.wait()
                until(lambda: not _left(plan, popen.pid), _STOP_WITHIN_S, f"the children of {name} to go")  # noqa: B023
            del self._running[name]

    def close(self) -> None:
        """End the thread that starts processes. None can be started afterwards."""
        self._starter.shutdown()


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout_s: float, stdin: str = "") -> str:
    """A command's standard output. Raises PulpError, with its last words, when it fails or takes too long."""
    from plumbum.commands.processes import ProcessTimedOut

    try:
        command = local[argv[0]][list(argv[1:])]
        if stdin:
            command = command << stdin
        with local.env(**env):
            code, output, errors = command.run(retcode=None, timeout=timeout_s, cwd=str(cwd))
    except CommandNotFound as error:
        raise PulpError(f"{argv[0]} is not installed on this host: run deploy/bootstrap base postgresql") from error
    except ProcessTimedOut as error:
        raise PulpError(f"{' '.join(argv)[:300]} took longer than {timeout_s:g} s") from error
    if code:
        words = (errors.strip() or output.strip())[-_SHOWN_CHARACTERS:]
        raise PulpError(f"{' '.join(argv)[:300]} failed with code {code}:\n{words}")
    return str(output)


def until(is_there: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until `is_there` returns True. Raises PulpError at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not is_there():
        if time.monotonic() > deadline:
            raise PulpError(f"waited {timeout_s:g} s for {what}")
        time.sleep(_POLL_S)


def last_line(log: Path) -> str:
    """The last line of a process's log, for a message."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-500:] if lines else "it wrote nothing"


def _popen(plan: Plan) -> Any:
    argv = ["setpriv", "--pdeathsig", "KILL", *plan.argv]
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    with plan.log.open("ab") as file:
        return local[argv[0]][argv[1:]].popen(
            stdin=None, stdout=file, stderr=file, env=dict(plan.env), start_new_session=True, cwd=str(plan.cwd)
        )


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _left(plan: Plan, group: int) -> list[int]:
    """The children of it that still run, in its group or in its folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            at_work = plan.folder is not None and (entry / "cwd").readlink() == plan.folder
        except OSError:  # it ended, or this user may not read it
            continue
        if state != "Z" and (int(pgrp) == group or at_work):
            found.append(int(entry.name))
    return found
