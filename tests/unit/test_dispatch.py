"""The messages that the scheduler sends are those that Celery's own chain would send."""

from contextlib import nullcontext
from typing import Any

import pytest
from celery import chain, signature
from kombu.exceptions import BatchPublishError

from farm import wire
from farm.app import app
from farm.errors import FarmNotRunning
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.source import Source, SourceKind
from farm.scheduler import dispatch
from farm.steps.base import Message, Order
from farm.steps.registry import step_type

FETCH = Message(attempt="12.fetch.1", kind="fetch", arch=None, package="hello", queue="source")
SRPM = Message(attempt="12.srpm.1", kind="srpm", arch=None, package="hello", queue="source")
BUILD = Message(attempt="12.build.x86_64.3", kind="build", arch=Arch.X86_64, package="hello", queue="build.x86_64")
UPLOAD = Message(attempt="12.upload.x86_64.1", kind="upload", arch=Arch.X86_64, package="hello", queue="publish")


class Producer:
    """Keeps what is published, where a producer would give it to a connection."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, dict[str, Any]]] = []

    @property
    def connection(self) -> "Producer":
        return self

    def _reraise_as_library_errors(self) -> Any:
        return nullcontext()

    def publish(self, body: Any, **how: Any) -> None:
        self.sent.append((body, how))


def order(message: Message, following: Message | None) -> Order:
    return Order(
        message=message,
        following=following,
        build_id=12,
        batch_id=1,
        target="demo",
        options=BuildOptions(),
        wall_s=60,
        source=Source(kind=SourceKind.GIT, url="https://example.org/hello.git"),
        arches=(Arch.X86_64,),
        covers=(),
        made={},
    )


def by_canvas(message: Message, following: Message | None, producer: Producer) -> None:
    """As a user of Celery writes it."""
    links = [
        signature(
            step_type(one.kind).task,
            kwargs={"attempt": one.attempt, "v": wire.VERSION},
            immutable=True,
            app=app,
            options={
                "task_id": one.attempt,
                "queue": one.queue,
                "shadow": f"{one.kind} {one.package}" + (f" {one.arch}" if one.arch else ""),
                "ignore_result": True,
            },
        )
        for one in (message, following)
        if one is not None
    ]
    if len(links) == 1:
        links[0].apply_async(producer=producer, retry=False)
        return
    steps, _ = chain(*links).prepare_steps((), {}, links, app=app)
    steps.pop().apply_async(chain=steps, producer=producer, retry=False)


def shape(sent: tuple[Any, dict[str, Any]]) -> Any:
    """Without the queue for results, of which there are none, and what is declared."""
    (args, kwargs, embedded), how = sent
    links = [dict(link) for link in embedded["chain"] or ()]
    for link in links:
        link["options"] = {name: value for name, value in link["options"].items() if name != "reply_to"}
        link["args"] = list(link["args"])
    left_out = {"reply_to", "declare"}
    how = {name: value for name, value in how.items() if name not in left_out}
    return list(args), kwargs, {**embedded, "chain": links}, how


@pytest.mark.parametrize(
    ("message", "following"), [(FETCH, SRPM), (BUILD, UPLOAD), (FETCH, None), (UPLOAD, None)], ids=str
)
def test_a_message_is_what_a_chain_of_celery_sends(message: Message, following: Message | None) -> None:
    ours, theirs = Producer(), Producer()
    dispatch._publish(order(message, following), ours)
    by_canvas(message, following, theirs)
    assert [shape(one) for one in ours.sent] == [shape(one) for one in theirs.sent]
    assert len(ours.sent) == 1


def test_a_broker_that_does_not_answer_is_named() -> None:
    with pytest.raises(FarmNotRunning, match="connection reset"), dispatch._broker():
        raise BatchPublishError("delivery is uncertain") from OSError("connection reset")


def test_nothing_to_send_needs_no_broker() -> None:
    dispatch.Dispatcher("redis://127.0.0.1:1/0").send([])
