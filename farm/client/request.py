"""Turns a person's options into a `BuildRequest`, and checks all of them before anything is written."""

import os
import pwd
import re
from collections.abc import Sequence
from dataclasses import replace

from farm.client.limits import GivenLimits, check_limits
from farm.client.source import check_source
from farm.config import Settings
from farm.errors import BadRequest, UnknownArch
from farm.model.arch import Arch
from farm.model.build import BuildOptions, BuildRequest, StepKind
from farm.model.target import LIMIT_RANGES, Target
from farm.targets.load import pick_arches

PRIORITY_MAX = 1000
_, TIMEOUT_MAX_S = LIMIT_RANGES["wall_s"]
_VALUE_MAX = 4096
_OWNER_MAX = 64
# rpm's own rule (doDefine in rpmio/macro.c): a letter or underscore first, at least three characters.
_MACRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
_CONDITION_NAME = re.compile(r"[A-Za-z0-9_]+")


def make_options(
    *,
    with_: Sequence[str] = (),
    without: Sequence[str] = (),
    defines: Sequence[tuple[str, str]] = (),
    timeout_s: int | None = None,
    limits: GivenLimits | None = None,
) -> BuildOptions:
    """`timeout_s` and the limit `wall_s` are the same. Raises BadRequest, naming the option and what it takes."""
    for option, names in (("--with", with_), ("--without", without)):
        if isinstance(names, str):
            raise BadRequest(f"{option} takes a list of names, and {names!r} is a text; give [{names!r}]")
        for name in names:
            if not _CONDITION_NAME.fullmatch(name):
                raise BadRequest(f"{option} {name!r} is not a condition's name; use letters, digits and underscores")
    if both := sorted(set(with_) & set(without)):
        raise BadRequest(f"{both[0]!r} is in both --with and --without; leave one of them out")
    for name, value in defines:
        _check_define(name, value)
    if timeout_s is not None and timeout_s not in range(1, TIMEOUT_MAX_S + 1):
        raise BadRequest(f"--timeout {timeout_s} is out of range; use 1 to {TIMEOUT_MAX_S} seconds")
    own = check_limits(limits or {})
    if own.wall_s is not None and timeout_s is not None:
        raise BadRequest("--timeout and --limit wall are the same; leave one of them out")
    return BuildOptions(
        with_=tuple(with_),
        without=tuple(without),
        defines=tuple((n, v) for n, v in defines),
        timeout_s=own.wall_s if timeout_s is None else int(timeout_s),
        limits=replace(own, wall_s=None),
    )


def parse_define(text: str) -> tuple[str, str]:
    """`'NAME VALUE'`, as rpmbuild takes it. Raises BadRequest.

    >>> parse_define("dist .el9")
    ('dist', '.el9')
    """
    name, _, value = text.strip().partition(" ")
    _check_define(name, value.strip())
    return name, value.strip()


def check_request(target: Target, request: BuildRequest) -> BuildRequest:
    """The same request for this target, with the arches filled in. Raises UnknownArch, BadSource, BadRequest."""
    arches = pick_arches(target, request.arches)
    given = request.options
    options = make_options(
        with_=given.with_,
        without=given.without,
        defines=given.defines,
        timeout_s=given.timeout_s,
        limits=given.limits,
    )
    check_priority(request.priority)
    check_source(request.source)
    return replace(request, arches=arches, options=options)


def check_priority(priority: int) -> None:
    """Raises BadRequest."""
    if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise BadRequest(f"--priority {priority} is out of range; use {-PRIORITY_MAX} to {PRIORITY_MAX}, 0 is usual")


def owner_name(settings: Settings, owner: str | None) -> str:
    """The owner of the request: the given one, else `FARM_OWNER`, else this process's user. Raises BadRequest for an
    unprintable one.
    """
    name = owner or settings.owner or _user()
    if len(name) > _OWNER_MAX or not name.isprintable():
        raise BadRequest(f"owner {name[:80]!r} is too long or unprintable; use at most {_OWNER_MAX} characters")
    return name


def step_kind(step: str | None) -> StepKind | None:
    """Raises BadRequest."""
    try:
        return StepKind(step) if step is not None else None
    except ValueError as error:
        raise BadRequest(f"{step!r} is not a step; there are {', '.join(StepKind)}") from error


def arch_named(arch: str | None) -> Arch | None:
    """Raises UnknownArch."""
    try:
        return Arch(arch) if arch is not None else None
    except ValueError as error:
        raise UnknownArch(f"{arch!r} is not an architecture; there are {', '.join(Arch)}") from error


def _check_define(name: str, value: str) -> None:
    if not _MACRO_NAME.fullmatch(name):
        raise BadRequest(
            f"--define {name!r} is not a macro's name; use 'NAME VALUE' with three or more letters, digits, underscores"
        )
    if not value or len(value) > _VALUE_MAX or not value.replace("\t", " ").isprintable():
        raise BadRequest(f"--define {name} has no value, or one that is too long or unprintable; use 'NAME VALUE'")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
