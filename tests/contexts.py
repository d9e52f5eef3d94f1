"""A step's context as the runner makes it, for tests of the parts below it; and the demo target that they build."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.formats.rpm.settings import RpmSettings
from farm.model.arch import Arch
from farm.model.target import Limits, RepositorySource, Target
from workers.core.context import StepContext
from workers.core.log import StepLog


def demo_target(distribution: Path) -> Target:
    """The demo distribution on this machine, for x86_64 alone."""
    return Target(
        name="demo",
        distribution="demo",
        release="1",
        arches=(Arch.X86_64,),
        repositories=(RepositorySource(name="demo", baseurl=f"file://{distribution}/{{arch}}", gpgcheck=False),),
        packages=("demo-build",),
        table=RpmSettings(macros=(("dist", ".demo1"),)).table,
    )


@contextmanager
def step_context(
    settings: Settings,
    workdir: Path,
    log: Path,
    *,
    limits: Limits,
    attempt: str = "1.build.x86_64.1",
    log_bytes: int | None = None,
    wall_s: float | None = None,
    stop: threading.Event | None = None,
) -> Iterator[StepContext]:
    """`workdir` has to be there; the log's limit and the deadline are those of `limits`, unless they are given."""
    with StepLog(log, limit_bytes=limits.log_bytes if log_bytes is None else log_bytes) as step_log:
        yield StepContext(
            attempt=attempt,
            workdir=workdir,
            log=step_log,
            store=DirectoryStore(settings.artifacts),
            settings=settings,
            limits=limits,
            stop=stop or threading.Event(),
            deadline=time.monotonic() + (limits.wall_s if wall_s is None else wall_s),
        )
