"""The bodies of the HTTP API that are no values of the model. The server and the remote client share them.

A body that a client sends may have no unknown key, so that a misspelt one is not ignored.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from farm.model.actor import Role
from farm.model.audit import AuditRecord
from farm.model.build import Build, Step
from farm.model.place import DEFAULT_PROJECT
from farm.service.orders import BuildOrder, PackageOrder

#: The prefix of all paths of the API but those of the two probes.
PREFIX = "/api/v1"
#: The largest number of builds on a page of a list.
PAGE_MAX = 1000
#: The largest number of builds of a batch. One transaction writes them, some seconds for this number.
BATCH_MAX = 10_000
#: The most bytes of a log in one answer.
LOG_PART_MAX = 4 * 2**20
#: The header with which a client may repeat a POST: it is carried out once for each key.
KEY_HEADER = "idempotency-key"
#: The headers of a part of a log: the attempt that wrote it, and whether any byte comes after it; and of a log that is
#: followed, the offset of its first byte.
ATTEMPT_HEADER, OVER_HEADER, OFFSET_HEADER = "farm-attempt", "farm-log-over", "farm-log-offset"


class _Sent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that a client sends."""


class BatchOrder(_Sent, frozen=True, kw_only=True):
    """The builds of a batch, and their owner if it is not the actor."""

    builds: Annotated[tuple[BuildOrder, ...], msgspec.Meta(max_length=BATCH_MAX)]
    owner: str | None = None


class RetryOrder(_Sent, frozen=True, kw_only=True):
    """The step to run again; without one, the steps that did not succeed."""

    step: str | None = None
    arch: str | None = None


class RollbackOrder(_Sent, frozen=True, kw_only=True):
    """The version to roll a repository back to. `kind` is os, debug or source."""

    to: int
    arch: str | None = None
    kind: str = "os"
    project: str = DEFAULT_PROJECT


class DrainOrder(_Sent, frozen=True, kw_only=True):
    """With `hands_back` the running steps run on another host; `force` drains an unknown host too."""

    hands_back: bool = False
    reason: str = ""
    force: bool = False


class CollectOrder(_Sent, frozen=True, kw_only=True):
    """Artifacts that are needed only by builds that ended before `since` are removed."""

    since: Annotated[datetime, msgspec.Meta(tz=True)]
    dry_run: bool = False


class TokenOrder(_Sent, frozen=True, kw_only=True):
    """`bearer` is the name as which the token's bearer acts; the actor's own if it is null. With a `project`, the roles
    hold in that project alone."""

    name: str
    roles: tuple[Role, ...]
    bearer: str | None = None
    expires_s: int = 90 * 86400
    project: str | None = None


class NewProjectOrder(_Sent, frozen=True, kw_only=True):
    """`builds_on` are other projects, in order; `root_packages` come from the project's own repository."""

    name: str
    targets: tuple[str, ...]
    title: str = ""
    builds_on: tuple[str, ...] = ()
    root_packages: tuple[str, ...] = ()
    is_private: bool = False


class ProjectOrder(_Sent, frozen=True, kw_only=True, omit_defaults=True):
    """New values for the settings of a project; null leaves one as it is."""

    title: str | None = None
    targets: tuple[str, ...] | None = None
    builds_on: tuple[str, ...] | None = None
    root_packages: tuple[str, ...] | None = None
    is_private: bool | None = None


class GrantOrder(_Sent, frozen=True, kw_only=True):
    """The role of an actor in a project: packager or maintainer; null takes it away."""

    actor: str
    role: Role | None


class NewPackageOrder(PackageOrder, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A package of a project. With `replaces` it takes the place of the package of that name."""

    name: str
    replaces: bool = False


class UploadOrder(_Sent, frozen=True, kw_only=True):
    """A file that the client sends in parts afterwards, for builds for this target."""

    filename: str
    size_bytes: int
    sha256: str
    target: str


class BuildPage(msgspec.Struct, frozen=True, kw_only=True):
    """Builds, newest first. `before` of the next page is `next`, which is null on the last one."""

    builds: tuple[Build, ...]
    next: int | None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records of the audit log, newest first. `before` of the next page is `next`, which is null on the last one."""

    records: tuple[AuditRecord, ...]
    next: int | None


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    steps: tuple[Step, ...]


class QueueSlots(msgspec.Struct, frozen=True, kw_only=True):
    """How many slots of a queue get work now, and why the others get none."""

    slots: int
    why: str


class QueueCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of ready steps, and of steps that workers hold."""

    ready: int
    busy: int


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as RFC 9457 has it. `code` is a word of docs/cli.md, and `detail` names the value and the next step.
    `field` is the part of the request that is wrong, where it is known.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
