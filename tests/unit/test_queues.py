"""The queue of an attempt's label, and texts that are not labels."""

import pytest

from farm.steps.registry import queue_of


@pytest.mark.parametrize(
    ("label", "queue"),
    [
        ("12.fetch.1", "source"),
        ("12.srpm.3", "source"),
        ("12.build.x86_64.1", "build.x86_64"),
        ("12.build.aarch64.2", "build.aarch64"),
        ("12.upload.x86_64.1", "publish"),
        ("12.logs.x86_64.1", "publish"),
        ("12.logs.1", "publish"),  # before there are arches
    ],
)
def test_a_label_says_its_queue(label: str, queue: str) -> None:
    assert queue_of(label) == queue


@pytest.mark.parametrize(
    "label",
    [
        *(
            "",
            ".",
            "12",
            "12.fetch",
            "12.cook.1",
            "12.build.1",
            "12.build.vax.1",
            "12.fetch.x86_64.1",
            "12.upload.1",
            "12.build.x86_64.1.1",
            "x.fetch.1",
        ),
        *(
            "12.fetch.x",
            "-1.fetch.1",
            "12.fetch.-1",
            "12.fetch.\u0661",
            "12.fetch. 1",
            "12.fetch.1\n",
            "9" * 70 + ".fetch.1",
        ),
        *("12..fetch.1", "12.FETCH.1", "../12.fetch.1", "12.fetch.1:x"),
    ],
)
def test_a_text_that_is_not_a_label_gives_none(label: str) -> None:
    assert queue_of(label) is None
