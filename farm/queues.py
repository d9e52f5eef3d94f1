"""Queue names: who sends what where. The strings are here and nowhere else."""

from farm.model.arch import Arch
from farm.model.build import StepKind

SOURCE = "source"
PUBLISH = "publish"
CONTROL = "control"
_LABEL_CHARS = 64


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


def queue_of(label: str) -> str | None:
    """The queue of the step that an attempt's label speaks of (`12.build.x86_64.1`); None for what is no label."""
    if len(label) > _LABEL_CHARS:
        return None
    try:
        build_id, kind, *arch, number = label.split(".")
        if len(arch) > 1 or not all(part.isascii() and part.isdigit() for part in (build_id, number)):
            return None
        return queue_for(StepKind(kind), Arch(arch[0]) if arch else None)
    except ValueError:
        return None


ALL = (SOURCE, PUBLISH, CONTROL, *(build_queue(arch) for arch in Arch))
