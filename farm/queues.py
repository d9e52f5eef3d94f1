"""The names of queues and control lists. The strings stand only in this file.

A worker's *role* is the name of a queue that it serves. The role determines the control list of its documents, its part
of the register, and its account of the broker (farm/broker/roles.py).
"""

from farm.model.arch import Arch

SOURCE = "source"
PUBLISH = "publish"
BUILD = "build"  # followed by a dot and the arch
CONTROL = "control"
CLIENT = "client"

#: One element at most: it ends the scheduler's wait for a document in any of the control lists.
CONTROL_BELL = f"{CONTROL}:bell"


def build_queue(arch: Arch) -> str:
    return f"{BUILD}.{arch}"


def behind(queue: str) -> str:
    """The list of a Celery queue's messages that wait behind all others. It is kombu's list of the lowest priority."""
    return f"{queue}\x06\x169"


def lists_of(queue: str) -> tuple[str, ...]:
    """kombu's lists of a Celery queue: one for each priority."""
    return (queue, *(f"{queue}\x06\x16{priority}" for priority in (3, 6, 9)))


def arch_of(queue: str) -> Arch | None:
    """The arch of a build queue; None for any other queue."""
    return next((arch for arch in Arch if build_queue(arch) == queue), None)


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
