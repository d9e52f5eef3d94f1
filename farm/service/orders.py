"""Orders: requests as JSON, for builds and packages that are asked for over a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from farm.errors import BadRequest
from farm.formats.registry import format_of
from farm.model.build import BuildRequest
from farm.model.place import DEFAULT_PROJECT
from farm.model.source import SourceKind
from farm.model.target import OwnLimits, Target
from farm.service.request import (
    PackageArguments,
    RequestArguments,
    check_has_source,
    check_names,
    check_package_names,
    two_sources,
)
from farm.service.source import check_local, check_srpm, is_local

OrderT = TypeVar("OrderT", bound="PackageOrder")


class PackageOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The arguments of a package as JSON. `defines` are pairs of name and value."""

    git: str | None = None
    srpm: str | None = None
    ref: str | None = None
    subdir: str | None = None
    spec: str | None = None
    arches: tuple[str, ...] = ()
    with_: tuple[str, ...] = msgspec.field(default=(), name="with")
    without: tuple[str, ...] = ()
    defines: tuple[tuple[str, str], ...] = ()
    timeout_s: int | None = None
    limits: dict[str, int] | None = None

    @property
    def arguments(self) -> PackageArguments:
        return cast("PackageArguments", {name: getattr(self, name) for name in PackageArguments.__annotations__})


class BuildOrder(PackageOrder, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The arguments of a request for one build as JSON. A `package` is one of the project's, by its name; `upload` is
    the sha256 of a finished upload of the actor, in place of `git` or `srpm`."""

    target: str | None = None
    project: str | None = None
    package: str | None = None
    upload: str | None = None
    priority: int = 0

    @property
    def arguments(self) -> RequestArguments:
        return cast("RequestArguments", {name: getattr(self, name) for name in RequestArguments.__annotations__})


def order_of(asked: RequestArguments) -> BuildOrder:
    """The order of these arguments. Raises BadSource for a local path, which another machine cannot read, BadRequest
    for options of another type, and TypeError for an argument that no request has.
    """
    check_names(asked)
    return _converted(asked, BuildOrder)


def package_order(asked: PackageArguments, kind: type[OrderT], **more: object) -> OrderT:
    """The order of a package of a project, with `more` of its fields. Raises as `order_of` does."""
    check_package_names(asked)
    return _converted({**asked, **more}, kind)


def _converted(asked: Mapping[str, Any], kind: type[OrderT]) -> OrderT:
    for name, source_kind in (("git", SourceKind.GIT), ("srpm", SourceKind.SRPM)):
        if (given := asked.get(name)) is not None:
            check_local(str(given), source_kind, None)
    defines, limits = asked.get("defines", ()), asked.get("limits")
    values = dict(asked) | {
        "defines": tuple(defines.items()) if isinstance(defines, Mapping) else tuple(defines),
        "limits": limits.given if isinstance(limits, OwnLimits) else limits,
    }
    try:
        return msgspec.convert(
            {"with" if name == "with_" else name: value for name, value in values.items() if value is not None}, kind
        )
    except msgspec.ValidationError as error:
        raise BadRequest(f"the request is not one: {error}; docs/python.md has the types") from error


def order_and_file(asked: RequestArguments) -> tuple[BuildOrder, str | Path | None]:
    """As `order_of`, without the source package of this machine that the arguments name, and its path; None without
    one."""
    srpm = asked.get("srpm")
    if srpm is None or not is_local(str(srpm), SourceKind.SRPM):
        return order_of(asked), None
    if asked.get("package"):
        raise two_sources()
    others: RequestArguments = {**asked, "srpm": None}
    return order_of(others), srpm


def check_file(given: str | Path, order: BuildOrder, target: Target) -> Path:
    """The source package of this machine, if it can be that of this order. Raises BadSource, BadRequest."""
    check_has_source(order.arguments, is_uploaded=True)
    return Path(check_srpm(given, format_of(target.format)))


def order_again(request: BuildRequest) -> BuildOrder:
    """The order that makes this request. A stored source package must be one that the actor uploaded."""
    source, options = request.source, request.options
    given = {"wall_s": options.timeout_s} | options.limits.given
    return BuildOrder(
        target=request.target,
        project=request.project if request.project != DEFAULT_PROJECT else None,
        package=request.package,
        git=source.url if source.kind is SourceKind.GIT and request.package is None else None,
        srpm=source.url if source.kind is SourceKind.SRPM and request.package is None else None,
        upload=source.sha256 if source.url is None else None,
        ref=source.ref,
        subdir=source.subdir,
        spec=source.spec,
        arches=tuple(request.arches),
        with_=options.with_,
        without=options.without,
        defines=options.defines,
        limits={name: value for name, value in given.items() if value is not None} or None,
        priority=request.priority,
    )
