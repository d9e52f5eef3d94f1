"""One package through the build engine alone, as the build step uses it."""

import tempfile
import time
from pathlib import Path

from farm.artifacts import open_store
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.formats.base import BuildRequest
from workers.formats.rpm.engines import engine_for


def build(settings: Settings, target: Target, srpm: Path) -> float:
    """Seconds from an empty work folder to RPMs in it and the root gone."""
    settings.work.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=settings.work) as name,
        StepLog(Path(name) / "log", limit_bytes=target.limits.log_bytes) as log,
    ):
        context = StepContext(
            attempt="0.build.x86_64.1",
            workdir=Path(name) / "work",
            log=log,
            store=open_store(settings),
            settings=settings,
            limits=target.limits,
            deadline=time.monotonic() + 600,
        )
        context.workdir.mkdir()
        request = BuildRequest(
            target=target, arch=Arch.X86_64, options=BuildOptions(), source=srpm, requires=("gcc",), repositories=()
        )
        engine = engine_for(target, settings)
        start = time.monotonic()
        run = engine.build(request, context)
        seconds = time.monotonic() - start
        if run.outcome is not Outcome.SUCCEEDED:
            raise RuntimeError(f"{run.outcome}: {run.reason}; {log.path.read_text(errors='replace')[-2000:]}")
    return seconds
