"""The documents that cross Redis: the Celery message, the work behind it, the report of the worker. JSON only.

Every document except a notice has a version. A host that does not speak it refuses work, so that another host gets it,
and says so with a notice, which is read leniently, so that hosts of different versions understand each other.
Reports are read one version back, so that steps which old workers run when a newer scheduler takes over are not lost: a
change that reports of the version before do not fit has to raise VERSION by two.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Generic

import msgspec

from farm.errors import UnknownVersion
from farm.model.artifact import Artifact
from farm.model.project import PROJECT_NAME
from farm.model.remote import RemoteKind
from farm.model.target import TARGET_NAME
from farm.model.work import AnyWork, OutputT, StepResult, Work
from farm.steps.registry import step_type

VERSION = 6
_READ_BACK = 1
_VERSION_FIRST = b'{"v":%d,' % VERSION
REMOTE_MAX_CHARS = 255


@dataclass(frozen=True, kw_only=True)
class TroubleReport:
    """Farm trouble: its error's code, whether it may be tried again, a message, and the artifacts stored until then.
    `remote` is the far end that failed, a host's name of at most REMOTE_MAX_CHARS, where the trouble was with one, and
    `remote_kind` says whether it is a server."""

    code: str
    retryable: bool
    message: str
    artifacts: tuple[Artifact, ...] = ()
    remote: str | None = None
    remote_kind: RemoteKind = RemoteKind.INPUT


@dataclass(frozen=True, kw_only=True)
class Report(Generic[OutputT]):
    """How one attempt ended. Exactly one of `result` and `trouble`.

    It counts when `token` is that of the attempt's lease. `worker` is for people who read a log; the lease says which
    worker sent the report, since a sender can write any name here.
    """

    attempt: str
    token: str
    kind: str
    worker: str
    started_at: datetime
    finished_at: datetime
    result: StepResult[OutputT] | None = None
    trouble: TroubleReport | None = None


AnyReport = Report[Any]


class NoticeKind(StrEnum):
    """A document of a worker about an attempt, other than its report."""

    RESUME = "resume"  # it runs it, and Redis knows nothing of that any more
    REFUSED = "refused"  # it took the message, and will not do it; its token, where it has no lease, proves nothing
    HANDED_BACK = "handed-back"  # it ran it, and was told to end now


@dataclass(frozen=True, kw_only=True)
class Notice:
    """`reason` is for people. A reader ignores fields that it does not know, and no field may change its meaning."""

    notice: NoticeKind
    attempt: str
    token: str
    worker: str
    reason: str = ""


class _Head(msgspec.Struct, frozen=True):
    """The part of a document that is read first, to learn whether its version is known."""

    v: int
    kind: str


class ReportHead(msgspec.Struct, frozen=True):
    """The part of a report that says whose it is."""

    v: int
    kind: str
    attempt: str
    token: str


@cache
def _work_type(kind: str) -> Any:
    return Work[step_type(kind).input]  # type: ignore[misc]  # a type that is known at run time alone


@cache
def _report_type(kind: str) -> Any:
    return Report[step_type(kind).output]  # type: ignore[misc]


def digest_of(token: str) -> str:
    """The digest of a token. Places that other processes than its owner and the scheduler may read have only this."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def encode_work(work: AnyWork) -> bytes:
    return _encode(work)


def decode_work(data: bytes | str) -> AnyWork:
    """Raises UnknownVersion, and ValueError for a document that is not work."""
    work: AnyWork = msgspec.json.decode(data, type=_work_type(_head(data).kind))
    if not TARGET_NAME.fullmatch(work.target.name):
        raise ValueError(f"{work.target.name[:64]!a} is no name of a target")
    if not PROJECT_NAME.fullmatch(work.project):
        raise ValueError(f"{work.project[:64]!a} is no name of a project")
    return work


def encode_report(report: AnyReport) -> bytes:
    return _encode(report)


def decode_report_head(data: bytes | str) -> ReportHead:
    """The head of a report. It takes a fortieth of the time that the whole takes, whatever the sender wrote.

    Raises UnknownVersion, and ValueError for a document that is not a report.
    """
    head = msgspec.json.decode(data, type=ReportHead)
    _check_version(head.v, oldest=VERSION - _READ_BACK)
    return head


def decode_report(data: bytes | str) -> AnyReport:
    """Raises UnknownVersion, and ValueError for a document that is not a report."""
    head = decode_report_head(data)
    report: AnyReport = msgspec.json.decode(data, type=_report_type(head.kind))
    return report


def encode_notice(notice: Notice) -> bytes:
    return msgspec.json.encode(notice)


def decode_notice(data: bytes | str) -> Notice | None:
    """The notice; None for a document that is no notice."""
    if data[:10] not in (b'{"notice":', '{"notice":'):
        return None  # told apart before it is read: a report is long
    try:
        return msgspec.json.decode(data, type=Notice)
    except (ValueError, RecursionError):  # not UTF-8, not a notice, or nested without end
        return None


def to_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _encode(value: object) -> bytes:
    return _VERSION_FIRST + msgspec.json.encode(value)[1:]


def _head(data: bytes | str) -> _Head:
    head = msgspec.json.decode(data, type=_Head)
    _check_version(head.v, oldest=VERSION)
    return head


def _check_version(version: int, *, oldest: int) -> None:
    if not oldest <= version <= VERSION:
        raise UnknownVersion(f"message version {version} is not {VERSION}, which is what this host speaks")
