"""The scheduler in tests: its picks from a store, without the scheduler, and one in a thread of the test's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from farm.config import Settings
from farm.model.arch import Arch
from farm.model.build import BuildOptions, BuildRequest
from farm.model.source import Source, SourceKind
from farm.scheduler.loop import Scheduler
from farm.store.read_view import Ready
from farm.store.store import Store

HELLO = BuildRequest(
    source=Source(kind=SourceKind.GIT, url="https://example.org/hello.git"), target="demo", arches=(Arch.X86_64,)
)
_END_WITHIN_S = 60.0


def added(store: Store) -> int:
    """The id of a new build of HELLO."""
    return store.add_batch([HELLO], owner="ann").builds[0].id


def ready(store: Store, build: int | None = None) -> list[Ready]:
    """Everything that is ready, of one build or of all."""
    with store.read_view() as look:
        return [
            one
            for queue, pairs in look.groups(most=100).items()
            for priority, owner in pairs
            for one in look.ready(queue, priority, owner, most=1000)
            if build in (None, one.build_id)
        ]


def ready_step(
    step_id: int,
    *,
    kind: str = "build",
    arch: Arch | None = Arch.X86_64,
    queue: str = "build.x86_64",
    priority: int = 0,
    owner: str = "ann",
    avoid: tuple[str, ...] = (),
    due_at: datetime | None = None,
) -> Ready:
    """A step as the store would read it."""
    return Ready(
        step_id=step_id,
        build_id=step_id,
        kind=kind,
        arch=arch,
        queue=queue,
        priority=priority,
        owner=owner,
        target="demo",
        package="hello",
        options=BuildOptions(),
        avoid=avoid,
        due_at=due_at,
    )


@contextmanager
def scheduling(settings: Settings) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Scheduler(settings).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_WITHIN_S)
        assert not thread.is_alive()
