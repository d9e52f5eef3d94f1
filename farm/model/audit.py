"""A record of the audit log: an act of an actor that changed something, or was to change it."""

from dataclasses import dataclass
from datetime import datetime

#: The outcome of an act that was carried out. All others are codes of errors.
DONE = "done"


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """`verb` is a word of `farm audit`, `subject` what it was about (`build 12`), `detail` what the actor asked for.

    `origin` is the network address from which the actor acted, or the user of the farm's machine (`user ann`).
    `outcome` is `done`, or the code of the error with which the act ended (`not-permitted`). `at` is when it ended.
    """

    id: int
    at: datetime
    actor: str
    origin: str
    verb: str
    subject: str
    detail: str
    outcome: str
