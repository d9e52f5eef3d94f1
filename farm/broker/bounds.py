"""Bounds on the documents that come out of Redis: sizes, lengths, ranges of numbers and of dates.

msgspec checks types. A value of the right type can still break the code that uses it: an integer that no database
takes, a date without a zone, a hundred thousand names. The functions here raise ValueError for such a document, so that
it is dropped where it enters.
"""

import math
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any

import msgspec

from farm import wire
from farm.model.label import AttemptLabel
from farm.model.worker import WorkerFacts, host_of
from farm.steps.registry import queue_of, step_type

#: The longest document that leaves Redis. Each step type has a limit of its own for reports (`report_bytes`), and a
#: batch of documents has one too.
DOCUMENT_BYTES = 16 * 2**20
NOTICE_BYTES = 2**19
#: The longest work of an attempt: an upload names each package once. Redis ends the connection of a sender whose
#: document is much longer, as the accounts are set up, and the scheduler could not tell that from an outage.
WORK_BYTES = 16 * 2**20
FACTS_BYTES = 16 * 2**10
HOLDER_BYTES = 1024  # a worker's name, or a digest
EVENT_BYTES = 16 * 2**10
WORKERS_OF_A_ROLE = 2000

_INT_MAX = 2**63 - 1
_ITEMS = 100_000
#: The store writes a row for each artifact, and holds up the other reports meanwhile.
_ARTIFACTS = 21_000
_TEXT_CHARS = 4096
#: Texts for people, which the store cuts.
_LONG_TEXTS = {"reason": 2**16, "message": 2**16, "excerpt": 2**18}
NAME_CHARS = 255
_YEARS = range(1971, 9000)  # with room for a change of zone at both ends
_SLOTS = range(1, 1025)
_CPUS = range(1_000_001)
_ENGINES = 16
_VERSIONS = range(1_000_001)


def decode_facts(role: str, node: str, document: bytes) -> WorkerFacts:
    """The facts that a worker announced under its role and node name. Raises ValueError, and RecursionError."""
    if len(document) > FACTS_BYTES:
        raise ValueError(f"the document is over {FACTS_BYTES} bytes")
    facts = msgspec.json.decode(document, type=WorkerFacts)
    if facts.name != node or facts.host != host_of(node):
        raise ValueError(f"the document names worker {facts.name[:NAME_CHARS]!a}, and its key names {node!a}")
    if facts.queues != (role,) or not {*(facts.consumes or ())} <= {role} or len(facts.consumes or ()) > 1:
        raise ValueError(f"the queues are not only {role}")
    for name in ("name", "host", "version", "unfit"):
        _check_name(name, getattr(facts, name) or "-")
    if len(facts.arches) != len(set(facts.arches)) or len(facts.engines) > _ENGINES:
        raise ValueError("the arches or engines repeat, or are too many")
    for engine in facts.engines:
        _check_name("engine", engine)
    for name, numbers in (("slots", _SLOTS), ("cpus", _CPUS), ("speaks", _VERSIONS)):
        if getattr(facts, name) not in numbers:
            raise ValueError(f"{name} is not between {numbers.start} and {numbers.stop - 1}")
    for name in ("memory_bytes", "disk_free_bytes"):
        if not 0 <= getattr(facts, name) <= _INT_MAX:
            raise ValueError(f"{name} is not between 0 and {_INT_MAX}")
    check(facts)
    return facts


def check_head(head: wire.ReportHead, role: str) -> None:
    """Raises ValueError for a report whose attempt does not belong to this role, or is of another step type."""
    _check_origin(head.attempt, role)
    _check_name("token", head.token)
    if AttemptLabel.parse(head.attempt).kind != head.kind:
        raise ValueError(f"attempt {head.attempt} is not of step type {head.kind[:NAME_CHARS]!a}")


def check_report_bytes(kind: str, size: int) -> None:
    """Raises ValueError for a report that is longer than those of this step type may be."""
    most = min(step_type(kind).report_bytes, DOCUMENT_BYTES)
    if size > most:
        raise ValueError(f"the report has {size} bytes; at most {most} are allowed for {kind}")


def check_report(report: wire.AnyReport, role: str) -> None:
    """Raises ValueError for a report that breaks a bound, or whose attempt does not belong to this role."""
    _check_origin(report.attempt, role)
    _check_name("worker", report.worker)
    check(report)


def check_notice(notice: wire.Notice, role: str) -> None:
    """Raises ValueError for a notice that breaks a bound, or whose attempt does not belong to this role."""
    _check_origin(notice.attempt, role)
    _check_name("worker", notice.worker)
    check(notice)


def decode_event(data: bytes | str) -> dict[str, Any] | None:
    """An event as the scheduler and clients publish it; None for anything else."""
    if len(data) > EVENT_BYTES:
        return None
    try:
        event = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and type(event.get("build")) is int else None


def check(value: Any, name: str = "") -> None:
    """Raises ValueError for text, a list, a number or a date in `value` that is out of bounds."""
    if (names := _field_names(value.__class__)) is not None:
        for field in names:
            check(getattr(value, field), field)
    elif isinstance(value, (tuple, list)):
        _check_length(name, len(value))
        for item in value:
            check(item, name)
    elif isinstance(value, dict):
        check([*value.keys(), *value.values()], name)
    elif (problem := _problem(value, name)) is not None:
        raise ValueError(f"{name} {problem}")


@cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else None


def _problem(value: Any, name: str) -> str | None:
    """The problem with one text, number or date; None for a sound one."""
    match value:
        case bool() | None | Enum():
            return None
        case str():
            return f"has {len(value)} characters" if len(value) > _LONG_TEXTS.get(name, _TEXT_CHARS) else None
        case int():
            return "does not fit in 64 bits" if abs(value) > _INT_MAX else None
        case float():
            return None if math.isfinite(value) else f"is {value}"
        case datetime():
            is_sound = value.tzinfo is not None and value.year in _YEARS
            return None if is_sound else f"is {value.isoformat()}: without a zone, or out of range"
        case _:
            return f"is a {type(value).__name__}"


def _check_length(name: str, items: int) -> None:
    if items > (_ARTIFACTS if name in ("artifacts", "rpms") else _ITEMS):
        raise ValueError(f"{name} has {items} entries")


def _check_name(name: str, text: str) -> None:
    if not 0 < len(text) <= NAME_CHARS or "\0" in text:
        raise ValueError(f"{name} is {text[:NAME_CHARS]!a}, which is empty, too long, or has a NUL")


def _check_origin(label: str, role: str) -> None:
    if queue_of(label) != role:
        raise ValueError(f"attempt {label[:NAME_CHARS]!a} does not belong to the role {role}")
