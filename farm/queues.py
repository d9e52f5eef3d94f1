"""Queue names: who sends what where. The strings are here and nowhere else."""

from farm.model.arch import Arch
from farm.model.build import StepKind

SOURCE = "source"
PUBLISH = "publish"
CONTROL = "control"


def build_queue(arch: Arch) -> str:
    return f"build.{arch}"


def queue_for(kind: StepKind, arch: Arch | None) -> str:
    """The queue of a step. Raises ValueError for a per-arch step without an arch."""
    match kind:
        case StepKind.FETCH | StepKind.SRPM:
            return SOURCE
        case StepKind.BUILD:
            if arch is None:
                raise ValueError("a build step has an arch")
            return build_queue(arch)
        case StepKind.UPLOAD:
            return PUBLISH


ALL = (SOURCE, PUBLISH, CONTROL, *(build_queue(arch) for arch in Arch))
