"""A farm of several "hosts" on one machine: real processes, workers whose node names say where they are.

To the farm a host is the name behind the `@`; nothing else separates these hosts (tests/siege has network namespaces).
The test can kill, stop and restart each process.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from farm import Farm, queues
from farm.config import Settings
from farm.model.arch import Arch
from tests.redis_server import redis_server
from tests.waiting import until

WITHIN_S = 60.0
BUILD = queues.build_queue(Arch.X86_64)
#: As Celery starts from the command line, with a version of messages that is another's.
OTHER_VERSION = (
    "import sys; from farm import wire; wire.VERSION += {by}; from celery.__main__ import main; sys.exit(main())"
)


class HostsFarm:
    """Processes by name: `scheduler`, and `<role>@<host>` for workers."""

    def __init__(self, settings: Settings, env: Mapping[str, str]) -> None:
        self.settings = settings
        self.farm: Farm
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LC_ALL": "C.UTF-8",
            "FARM_DATA": str(settings.data),
            **env,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_scheduler(self, name: str = "scheduler", *, version: int = 0) -> None:
        script = f"import sys; from farm import wire; wire.VERSION += {version}; "
        script += "from farm.scheduler.main import main; sys.exit(main())"
        self._start(name, [sys.executable, "-c", script], {})

    def start_worker(
        self, name: str, queue: str, *, slots: int = 1, version: int = 0, env: Mapping[str, str] | None = None
    ) -> None:
        """Returns when it is registered."""
        argv = [
            sys.executable,
            "-c",
            OTHER_VERSION.format(by=version),
            "-A",
            "workers.tasks",
            "worker",
            "-n",
            name,
        ]
        before = {worker.started_at for worker in self.farm.workers() if worker.name == name}
        argv += ["-Q", queue, "-c", str(slots), "--without-gossip", "--without-mingle"]
        self._start(name, argv, env or {})
        until(
            lambda: {worker.started_at for worker in self.farm.workers() if worker.name == name} - before,
            f"{name} to register",
        )

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def children(self, name: str) -> list[int]:
        pid = self.pid(name)
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self, name: str) -> str:
        return (self.settings.data / "log" / f"{name}.log").read_text(errors="replace")

    def signal(self, name: str, number: signal.Signals, *, is_group: bool = False) -> None:
        process = self._processes[name]
        if is_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)

    def ended(self, name: str, within_s: float = WITHIN_S) -> int:
        """Its exit code, when it has ended."""
        return self._processes.pop(name).wait(within_s)

    def end_all(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()

    def _start(self, name: str, argv: list[str], env: Mapping[str, str]) -> None:
        log = self.settings.data / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as file:
            self._processes[name] = subprocess.Popen(
                argv,
                env={**self._env, **env},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


@contextmanager
def hosts_farm(data: Path, distribution: Path, env: Mapping[str, str] | None = None) -> Iterator[HostsFarm]:
    """Redis and a scheduler, and workers for all but `build` on host `base`; the test starts the others."""
    (data / "demo").mkdir(parents=True, exist_ok=True)
    (data / "demo" / "distribution").symlink_to(distribution)
    given = {"FARM_OWNER": "tester", **(env or {})}
    settings = Settings.from_env({"FARM_DATA": str(data), **given})
    with redis_server(settings.socket):
        place = HostsFarm(settings, given)
        try:
            place.start_scheduler()
            until(lambda: settings.data.joinpath("farm.db").exists() and _answers(settings), "the database")
            with Farm.connect(settings) as farm:
                place.farm = farm
                place.start_worker("source@base", queues.SOURCE, slots=2)
                place.start_worker("publish@base", queues.PUBLISH)
                yield place
        finally:
            place.end_all()


def _answers(settings: Settings) -> bool:
    from farm.errors import FarmError

    try:
        Farm.connect(settings).close()
    except FarmError:
        return False
    return True
