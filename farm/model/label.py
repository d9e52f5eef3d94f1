"""The label of an attempt: `12.fetch.1`, `12.build.x86_64.1`. It is unique, and it is Celery's task id.

Owns how a label is written and read. Whether there is such a step type, and its queue, farm.steps.registry says.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from farm.model.arch import Arch

_CHARS = 64
_KIND = re.compile("[a-z][a-z0-9-]{0,31}")
_DIGITS_MAX = 18  # a larger number would be an error in the database


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptLabel:
    """`number` counts the attempts of a step from 1. `str()` gives the text.

    >>> AttemptLabel.parse("12.build.x86_64.1").step
    '12.build.x86_64'
    >>> str(AttemptLabel(job_id=12, kind="fetch", arch=None, number=1))
    '12.fetch.1'
    """

    job_id: int
    kind: str
    arch: Arch | None
    number: int

    @classmethod
    def parse(cls, text: str) -> "AttemptLabel":
        """Raises ValueError for any text that `str()` of a label cannot have given: each attempt has one label."""
        return _parse(text)

    @classmethod
    def parse_or_none(cls, text: str) -> "AttemptLabel | None":
        try:
            return cls.parse(text)
        except ValueError:
            return None

    @classmethod
    def of_row(cls, job_id: int, kind: str, arch: str, number: int) -> "AttemptLabel":
        """From the columns of `step` and `attempt`; an empty `arch` is none."""
        return cls(job_id=job_id, kind=_kind(kind), arch=Arch(arch) if arch else None, number=number)

    @property
    def step_name(self) -> str:
        """The step within its build: `fetch`, `build.x86_64`."""
        return f"{self.kind}.{self.arch.value}" if self.arch else self.kind

    @property
    def step(self) -> str:
        """The step, in the same words for each of its attempts: `12.build.x86_64`."""
        return f"{self.job_id}.{self.step_name}"

    @property
    def attempt_name(self) -> str:
        """The attempt within its build: `build.x86_64.1`."""
        return f"{self.step_name}.{self.number}"

    def __str__(self) -> str:
        return label_text(self.job_id, self.kind, self.arch, self.number)


def label_text(job_id: int, kind: str, arch: str | None, number: int) -> str:
    """The text of a label; an empty `arch` is none. The scheduler writes ten labels for each build."""
    return f"{job_id}.{kind}.{arch}.{number}" if arch else f"{job_id}.{kind}.{number}"


def _kind(text: str) -> str:
    if not _KIND.fullmatch(text):
        raise ValueError("a step type has a name of lower-case letters and digits")
    return text


@lru_cache(maxsize=4096)  # the scheduler reads each label several times while it settles and sends
def _parse(text: str) -> AttemptLabel:
    parts = text.split(".", 4)
    try:
        job_id, kind, *arch, number = parts
        if len(arch) > 1:
            raise ValueError("there is more than one arch")
        label = AttemptLabel.of_row(_number(job_id), kind, arch[0] if arch else "", _number(number))
    except ValueError as error:
        raise ValueError(f"{text[:_CHARS]!a} is no attempt's label, such as 12.fetch.1") from error
    if str(label) != text:
        raise ValueError(f"{text[:_CHARS]!a} is no attempt's label: the farm would write {str(label)!r}")
    return label


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ValueError("a number has up to 18 digits")
    return int(text)
