"""The table of recorded failures: the share of them whose reason names the cause."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.tools.record_reasons import HELD_OUT, TUNED, cases, log_of
from workers.formats.rpm.reason import find_reason


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The reason that the farm gives for one recorded log, and the expression that the right one matches."""

    name: str
    says: str
    reason: str

    @property
    def is_right(self) -> bool:
        return re.search(self.says, self.reason, re.IGNORECASE) is not None


def answers(*, held_out: bool) -> list[Answer]:
    """The answers to one part of the table."""
    return [_answer(name, case["says"]) for name, case in cases(HELD_OUT if held_out else TUNED).items()]


def share_right(given: Iterable[Answer]) -> float:
    given = list(given)
    return sum(answer.is_right for answer in given) / len(given)


def _answer(name: str, says: str) -> Answer:
    found = find_reason(log_of(name))
    return Answer(name=name, says=says, reason=found.line if found else "")
