"""The edges between steps: which step needs which, and how. Not the walks over a build's steps (changes.py), nor the
workflow that edges are written from (farm.steps).
"""

from dataclasses import dataclass
from enum import StrEnum

from farm.model.arch import Arch


class How(StrEnum):
    """How a step needs another one.

    CHAIN and SUCCESS need its success. With CHAIN the Celery message of the needing step is sent with the other step's
    message, as the next link of its chain. END needs only that the other step has ended without success.
    """

    CHAIN = "chain"
    SUCCESS = "success"
    END = "end"


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """The needed step, by kind and arch, of the same job."""

    kind: str
    arch: Arch | None
    how: How


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A step that a job should have, with the edges to the steps that it needs. Its outcome is part of the job's if it
    `counts`."""

    kind: str
    arch: Arch | None
    queue: str
    needs: tuple[Need, ...] = ()
    counts: bool = True
