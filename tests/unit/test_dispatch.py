"""The messages that the scheduler sends are those that Celery's own chain would send."""

import base64
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import chain, signature

from farm import wire
from farm.app import app
from farm.config import Settings
from farm.errors import FarmNotRunning
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.source import Source, SourceKind
from farm.scheduler import dispatch, messages
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
    messages.publish(message, following, ours)
    by_canvas(message, following, theirs)
    assert [shape(one) for one in ours.sent] == [shape(one) for one in theirs.sent]
    assert len(ours.sent) == 1


@pytest.mark.parametrize("package", ["hello", 'a "quoted" \\n name', "größer-文", "x-attempt-", "{0} %s $1 \\1"])
@pytest.mark.parametrize(("message", "following"), [(FETCH, SRPM), (BUILD, UPLOAD), (UPLOAD, None)], ids=str)
def test_a_filled_in_message_is_the_one_that_celery_and_kombu_make(
    message: Message, following: Message | None, package: str
) -> None:
    made = messages.Messages()
    made.text(message, following)  # the template is made of this one
    first = replace(message, attempt="987.other.1", package=package)
    second = replace(following, attempt="987.next.22", package=package) if following is not None else None
    ours, theirs = entry(made.text(first, second)), messages._entry(first, second)
    theirs["properties"]["delivery_tag"] = ours["properties"]["delivery_tag"]
    assert ours == {**theirs, "body": body(theirs)}


def test_each_message_has_a_delivery_tag_of_its_own() -> None:
    made = messages.Messages()
    tags = {entry(made.text(FETCH, SRPM))["properties"]["delivery_tag"] for _ in range(3)}
    assert len(tags) == 3


def entry(text: str) -> Any:
    found = json.loads(text)
    return {**found, "body": body(found)}


def body(found: Any) -> Any:
    return json.loads(base64.b64decode(found["body"]))


def test_a_broker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    sender = dispatch.Dispatcher(Settings.from_env({"FARM_DATA": str(tmp_path)}))
    with pytest.raises(FarmNotRunning, match=r"the farm's broker does not answer .*No such file"):
        sender.send([order(FETCH, SRPM)])
    sender.close()


def test_nothing_to_send_needs_no_broker(tmp_path: Path) -> None:
    dispatch.Dispatcher(Settings.from_env({"FARM_DATA": str(tmp_path)})).send([])
