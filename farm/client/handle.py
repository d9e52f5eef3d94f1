"""Handles on one build and on one batch, which `enqueue` returns, and the calls of a farm that they make."""

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol

from farm.client.download import download
from farm.errors import WaitTimedOut
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import Batch, Build, Step
from farm.model.outcome import Status
from farm.service.files import StoredFile, files_of
from farm.service.watch import Event, changes


class BuildCalls(Protocol):
    """The calls about builds that exist. A handle, a number and a `Build` name a build alike."""

    @abstractmethod
    def build(self, build: "BuildRef") -> Build:
        """The present state, with steps, attempts and their artifacts. Raises NotFound."""

    @abstractmethod
    def batch(self, batch_id: int) -> Batch:
        """Raises NotFound."""

    @abstractmethod
    def watch(self, build: "BuildRef", *, timeout_s: float | None = None) -> Generator[Build | None, None, None]:
        """Yield the build now and each time that it has changed, until it is finished.

        Yields None, and ends, when `timeout_s` have passed.
        """

    @abstractmethod
    def log(
        self,
        build: "BuildRef",
        step: str | None = None,
        arch: str | None = None,
        attempt: int | None = None,
        *,
        follow: bool = False,
    ) -> Iterator[bytes]:
        """An attempt's log as bytes, exactly as the tools wrote it; with `follow` until the attempt is over.

        The defaults are the step that failed, else the running one, else `build`, and the last attempt of it.
        Raises NotFound, and WrongState when the step has not begun.
        """

    @abstractmethod
    def open_artifact(self, artifact: Artifact) -> BinaryIO:
        """An artifact's content; the caller closes it. Raises NotFound."""

    @abstractmethod
    def cancel(self, build: "BuildRef") -> Build:
        """Cancel a build in any state; the scheduler kills its running steps within 2 s. Raises WrongState when it is
        over, NotPermitted.

        The build is over at once. The scheduler finds in SQL which steps to stop; without a scheduler, they are stopped
        when one starts.
        """

    @abstractmethod
    def retry(self, build: "BuildRef", step: str | None = None, arch: str | Arch | None = None) -> tuple[Step, ...]:
        """Run the steps that did not succeed again, or the named one and all later ones, with the recorded inputs.

        Returns the steps that start. Raises NotFound, NotPermitted, and WrongState while the build is going on there.
        """

    def artifacts(self, build: "BuildRef") -> tuple[StoredFile, ...]:
        """The artifacts of the last attempt of each step, in the order of the steps. Raises NotFound."""
        return files_of(self.build(build))

    def download(self, build: "BuildRef", into: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Copy all `artifacts` into a folder, which is made if missing; verify each file's digest.

        Raises WrongState, before it writes any file, when a file exists with other content.
        """
        return download(self.artifacts(build), self.open_artifact, Path(into), overwrite=overwrite)


class BuildHandle:
    """One build. `last` is the state that was last read; `refresh` reads it again."""

    def __init__(self, farm: BuildCalls, build: Build) -> None:
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
        """See `BuildCalls.retry`."""
        return self._farm.retry(self.id, step, arch)

    def log(
        self, step: str | None = None, arch: str | None = None, attempt: int | None = None, *, follow: bool = False
    ) -> Iterator[bytes]:
        """See `BuildCalls.log`."""
        return self._farm.log(self.id, step, arch, attempt, follow=follow)

    def artifacts(self) -> tuple[StoredFile, ...]:
        """See `BuildCalls.artifacts`."""
        return self._farm.artifacts(self.id)

    def download(self, into: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """See `BuildCalls.download`."""
        return self._farm.download(self.id, into, overwrite=overwrite)


class BatchHandle:
    """The builds of one batch, in the order in which they were asked for."""

    def __init__(self, farm: BuildCalls, batch: Batch) -> None:
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
