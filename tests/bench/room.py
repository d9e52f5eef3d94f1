"""The build engine alone, as the steps use it: one package, and the question for the sources of a spec."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.artifacts import open_store
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.target import Target
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.formats.base import BuildRequest, GatherRequest
from workers.formats.rpm.asked import Asker, Missing
from workers.formats.rpm.engines import engine_for
from workers.sources.content import Content

_SPEC = b"Name: s\nVersion: 1\nRelease: 1\nSummary: s\nLicense: MIT\nSource0: s-%{version}.tar\n%description\ns\n"


def build(settings: Settings, target: Target, srpm: Path) -> float:
    """Seconds from an empty work folder to RPMs in it and the root gone."""
    request = BuildRequest(
        target=target, arch=Arch.X86_64, options=BuildOptions(), source=srpm, requires=("gcc",), repositories=()
    )
    with _context(settings, target) as context:
        start = time.monotonic()
        run = engine_for(target, settings).build(request, context)
        seconds = time.monotonic() - start
        if run.outcome is not Outcome.SUCCEEDED:
            raise RuntimeError(f"{run.outcome}: {run.reason}; {context.log.path.read_text(errors='replace')[-2000:]}")
    return seconds


def ask(settings: Settings, target: Target) -> float:
    """Seconds that the fetch step takes to ask rpm for the sources of a small spec."""
    with _context(settings, target) as context:
        path = context.workdir / "small.spec"
        path.write_bytes(_SPEC)
        content = Content(file=path, offset=0, size_bytes=len(_SPEC))
        source = Source(kind=SourceKind.GIT, url="https://example.org/small")
        asked = GatherRequest(source=source, target=target, options=BuildOptions(), arches=(Arch.X86_64,))
        start = time.monotonic()
        found = Asker(asked, context, engine_for(target, settings), path.name).ask({path.name: content}, set())
        seconds = time.monotonic() - start
        if isinstance(found, Missing) or len(found[Arch.X86_64].sources) != 1:
            raise RuntimeError(f"rpm told {found}")
    return seconds


@contextmanager
def _context(settings: Settings, target: Target) -> Iterator[StepContext]:
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
        yield context
