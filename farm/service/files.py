"""The artifacts of a build, each with the attempt that stored it. Their content is the artifact store's."""

from dataclasses import dataclass

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import Build


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """An artifact, and the attempt that stored it."""

    step: str
    arch: Arch | None
    attempt: str
    artifact: Artifact

    @property
    def step_name(self) -> str:
        return f"{self.step} {self.arch}" if self.arch else self.step


def files_of(build: Build) -> tuple[StoredFile, ...]:
    """The artifacts of the last attempt of each step that stored any."""
    found = []
    for step in build.steps:
        last = next((attempt for attempt in reversed(step.attempts) if attempt.artifacts), None)
        if last is not None:
            found += [
                StoredFile(step=step.kind, arch=step.arch, attempt=last.label, artifact=artifact)
                for artifact in last.artifacts
            ]
    return tuple(found)
