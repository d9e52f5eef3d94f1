"""Handles on one build and on one batch, which `enqueue` returns."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from farm.errors import WaitTimedOut
from farm.model.arch import Arch
from farm.model.build import Batch, Build, Step
from farm.model.outcome import Status
from farm.service.files import StoredFile
from farm.service.watch import Event, changes

if TYPE_CHECKING:
    from farm.client import Farm


class BuildHandle:
    """One build. `last` is the state that was last read; `refresh` reads it again."""

    def __init__(self, farm: "Farm", build: Build) -> None:
        self._farm = farm
        self.last = build

    @property
    def id(self) -> int:
        return self.last.id

    def __repr__(self) -> str:
        return f"<build {self.id}: {self.last.package} for {self.last.target}, {self.last.outcome or self.last.status}>"

    def refresh(self) -> Build:
        self.last = self._farm.build(self.id)
        return self.last

    def wait(self, *, timeout_s: float | None = None, on_event: Callable[[Event], object] | None = None) -> Build:
        """Block until the build is finished, and return it. Safe to repeat.

        Raises WaitTimedOut after `timeout_s`, at most half a second late; the build goes on.
        """
        before: Build | None = None
        with closing(self._farm.watch(self.id, timeout_s=timeout_s)) as snapshots:
            for build in snapshots:
                if build is None:
                    break
                self.last = build
                if on_event is not None:
                    for event in changes(before, build):
                        on_event(event)
                before = build
        if self.last.status is Status.FINISHED:
            return self.last
        raise WaitTimedOut(
            f"build {self.id} is still {self.last.status} after {timeout_s:g} s; it goes on: `farm status {self.id}` "
            f"shows where it is, `farm cancel {self.id}` ends it"
        )

    def cancel(self) -> Build:
        """Raises WrongState when it is over."""
        self.last = self._farm.cancel(self.id)
        return self.last

    def retry(self, step: str | None = None, arch: str | Arch | None = None) -> tuple[Step, ...]:
        """See `Farm.retry`."""
        return self._farm.retry(self.id, step, arch)

    def log(
        self, step: str | None = None, arch: str | None = None, attempt: int | None = None, *, follow: bool = False
    ) -> Iterator[bytes]:
        """See `Farm.log`."""
        return self._farm.log(self.id, step, arch, attempt, follow=follow)

    def artifacts(self) -> tuple[StoredFile, ...]:
        """See `Farm.artifacts`."""
        return self._farm.artifacts(self.id)

    def download(self, into: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """See `Farm.download`."""
        return self._farm.download(self.id, into, overwrite=overwrite)


class BatchHandle:
    """The builds of one batch, in the order in which they were asked for."""

    def __init__(self, farm: "Farm", batch: Batch) -> None:
        self._farm = farm
        self.id = batch.id
        self.builds = tuple(BuildHandle(farm, build) for build in batch.builds)

    def __iter__(self) -> Iterator[BuildHandle]:
        return iter(self.builds)

    def __len__(self) -> int:
        return len(self.builds)

    def __repr__(self) -> str:
        return f"<batch {self.id} of {len(self)} builds>"

    def refresh(self) -> Batch:
        return self._farm.batch(self.id)

    def wait(
        self, *, timeout_s: float | None = None, on_event: Callable[[Event], object] | None = None
    ) -> tuple[Build, ...]:
        """Block until all are finished. `on_event` gets the events build by build. Raises WaitTimedOut."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        return tuple(
            build.wait(timeout_s=None if deadline is None else max(0.0, deadline - time.monotonic()), on_event=on_event)
            for build in self.builds
        )


BuildRef = int | Build | BuildHandle


def id_of(build: BuildRef) -> int:
    return build if isinstance(build, int) else build.id
