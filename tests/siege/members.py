"""The processes of the siege's farm. Restarts those that die, as a service manager does.

Not thread-safe: the kernel ends a member with the thread that started it, so one thread starts and tends them all.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.siege.ground import Ground
from tests.siege.net import path_of
from tests.siege.shape import Role
from tests.siege.timeline import Timeline

#: From its start until a worker has said that it is there; it is not counted on before.
READY_S = 10.0
_REAP_WITHIN_S = 5.0


@dataclass(kw_only=True)
class Member:
    """One process. `host` and `role` are a worker's. `before_start` is called, and forgotten, before it starts."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    namespace: str
    host: str = ""
    role: Role | None = None
    cwd: Path = Path("/")
    before_start: Callable[[], object] | None = None
    is_held: bool = False
    is_stopped: bool = False
    popen: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    start_at: float = field(default=0.0)
    starts: int = 0
    logged_bytes: int = 0  # by those before it, in the same log

    @property
    def pid(self) -> int:
        return self.popen.pid if self.popen is not None else 0

    @property
    def is_running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def is_ready(self) -> bool:
        return self.is_running and not self.is_stopped and time.monotonic() - self.started_at > READY_S

    @property
    def worker(self) -> str:
        """Celery's name of it, as the farm writes it down."""
        return f"{self.role}@{self.host}"

    def children(self) -> list[int]:
        """Process ids of its pool."""
        with suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(word) for word in text.split()]
        return []


class Members:
    """All members. Call `tend` often."""

    def __init__(self, ground: Ground, rng: random.Random, after_s: tuple[float, float], timeline: Timeline) -> None:
        self._ground = ground
        self._rng = rng
        self._after_s = after_s
        self._timeline = timeline
        self._all: dict[str, Member] = {}

    def __getitem__(self, name: str) -> Member:
        return self._all[name]

    def all(self) -> list[Member]:
        return list(self._all.values())

    def workers(self, host: str = "", role: Role | None = None) -> list[Member]:
        """By host and role; all of either where it is not given."""
        return [
            member
            for member in self.all()
            if member.role is not None and host in ("", member.host) and role in (None, member.role)
        ]

    def schedulers(self) -> list[Member]:
        return [member for member in self.all() if member.name.startswith("scheduler")]

    def add(self, member: Member) -> Member:
        self._all[member.name] = member
        self.start(member)
        return member

    def start(self, member: Member) -> None:
        if member.before_start is not None:
            before, member.before_start = member.before_start, None
            before()
        inside = ["setpriv", "--pdeathsig", "KILL", "--", "nsenter", f"--net={path_of(member.namespace)}", "--"]
        if member.host:
            inside += ["unshare", "--uts", "--", "sh", "-c", 'hostname "$0" && exec "$@"', member.host]
        log = self._ground.log / f"{member.name}.log"
        with log.open("ab") as file:
            member.logged_bytes = file.tell()
            member.popen = subprocess.Popen(
                self._ground.joining([*inside, *member.argv]),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(member.env),
                start_new_session=True,
                cwd=member.cwd,
            )
        member.started_at = time.monotonic()
        member.start_at, member.is_stopped = 0.0, False
        member.starts += 1

    def reap(self) -> None:
        """When all are dead."""
        for member in self.all():
            if member.popen is not None:
                with suppress(subprocess.TimeoutExpired):
                    member.popen.wait(_REAP_WITHIN_S)

    def tend(self) -> None:
        """Start again what died, some seconds later."""
        now = time.monotonic()
        for member in self.all():
            if member.is_held or member.is_running or member.popen is None:
                continue
            if not member.start_at:
                pause_s = self._rng.uniform(*self._after_s)
                member.start_at = now + pause_s
                self._timeline.add(
                    "manager", f"{member.name} ended with {member.popen.returncode}; next in {pause_s:.1f} s"
                )
            elif now >= member.start_at:
                self.start(member)
                self._timeline.add("manager", f"{member.name} started again as {member.pid}")

    def send(self, pids: Iterable[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
