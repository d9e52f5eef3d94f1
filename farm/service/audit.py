"""The audit log: every act of an actor that changes something is checked and recorded here, also when it is refused.

An act leaves one record, when it has ended. A record has no message of an error and no value that the actor sent but
those that the verb names, so no secret gets into it.
"""

import logging
import os
import pwd
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from farm.errors import BadRequest, FarmError, FarmNotRunning
from farm.model.actor import Actor
from farm.model.audit import DONE, AuditRecord
from farm.model.text import printable
from farm.service.permissions import Place, Verb, check

if TYPE_CHECKING:
    from farm.store.audit import AuditStore

_UNEXPECTED = "unexpected"
_AGO = re.compile(r"([1-9][0-9]{0,5})(min|h|d)")
_MINUTES = {"min": 1, "h": 60, "d": 1440}
_log = logging.getLogger(__name__)

#: The owner of the builds that a verb is about, or how to look it up.
Owner = str | Callable[[], str | None] | None


@dataclass
class Act:
    """The texts of the record: the verb may replace `subject` and `detail` while it works."""

    subject: str
    detail: str = ""


@contextmanager
def act(
    store: "AuditStore",
    actor: Actor,
    verb: Verb,
    subject: str,
    *,
    owner: Owner = None,
    place: Callable[[], Place] = Place,
    detail: str = "",
) -> Iterator[Act]:
    """Check that the actor may do this, before the block, and record how it ended, after it. `place` is the project
    that the verb is about, the default one if it is left out.

    Raises NotPermitted, what `owner` and `place` raise, and FarmNotRunning if the record of an act that was carried out
    cannot be written.
    """
    made, outcome = Act(subject, detail), _UNEXPECTED
    try:
        where = place()
        check(actor, verb, owner=owner() if callable(owner) else owner, place=where)
        yield made
        outcome = DONE
    except FarmError as error:
        outcome = error.code
        raise
    finally:
        record = AuditRecord(
            id=0,
            at=datetime.now(UTC),
            actor=actor.name,
            origin=actor.origin or f"user {_process_user()}",
            verb=verb.word,
            subject=printable(made.subject),
            detail=printable(made.detail),
            outcome=outcome,
        )
        try:
            store.add_audit(record)
        except FarmNotRunning:
            _log.exception("Not in the audit log: %s", record, extra={"action": "audit"})
            if outcome == DONE:
                raise


def parse_since(text: str) -> datetime:
    """`90min`, `12h` or `7d` ago, or a date or time in UTC such as 2026-11-27 or 2026-11-27T12:00. Raises
    BadRequest."""
    given = text.strip()
    try:
        if found := _AGO.fullmatch(given):
            return datetime.now(UTC) - timedelta(minutes=int(found[1]) * _MINUTES[found[2]])
        at = datetime.fromisoformat(given)
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"--since {text[:80]!r} is no time; use 90min, 12h, 7d or 2026-11-27T12:00") from error


def check_verb(word: str | None) -> str | None:
    """The same word, if records can have it. Raises BadRequest."""
    words = [verb.word for verb in Verb if verb.changes and verb is not Verb.HURRY]  # a part of `enqueue`
    if word is not None and word not in words:
        raise BadRequest(f"{word[:80]!r} is no verb of the audit log; the verbs are {', '.join(words)}")
    return word


@cache
def _process_user() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
