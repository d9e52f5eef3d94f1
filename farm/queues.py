"""Queue names: who sends what where. The strings are here and nowhere else.

A worker's *role* is the name of a queue that it serves. The role says which control list its documents come in, which
part of the register is its own, and which account of the broker it has (farm/broker/roles.py).
"""

from farm.model.arch import Arch
from farm.model.build import StepKind
from farm.model.label import AttemptLabel

SOURCE = "source"
PUBLISH = "publish"
CONTROL = "control"
CLIENT = "client"

#: One element at most: it ends the scheduler's wait for a document in any of the control lists.
CONTROL_BELL = f"{CONTROL}:bell"


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


def needs_root(queue: str) -> bool:
    """Whether a step of this queue runs in a build root: `srpm` does, and every `build`."""
    return queue != PUBLISH


def queue_of(label: str) -> str | None:
    """The queue of the step that an attempt's label speaks of (`12.build.x86_64.1`); None for what is no label."""
    found = AttemptLabel.parse_or_none(label)
    try:
        return queue_for(found.kind, found.arch) if found is not None else None
    except ValueError:
        return None


#: The roles of workers, which are the queues of steps.
WORKER_ROLES = (SOURCE, PUBLISH, *(build_queue(arch) for arch in Arch))
ALL = (SOURCE, PUBLISH, CONTROL, *(build_queue(arch) for arch in Arch))
#: The roles whose documents the scheduler takes.
CONTROL_ROLES = (*WORKER_ROLES, CLIENT)


def control_list(role: str) -> str:
    """The list of a role's documents for the scheduler."""
    return f"{CONTROL}:{role}"


def control_taken(role: str) -> str:
    """The documents of `control_list` that the scheduler took and has not settled yet."""
    return f"{CONTROL}:taken:{role}"
