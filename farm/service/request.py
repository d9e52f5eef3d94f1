"""Turns a person's options into a `BuildRequest`, and checks all of them before anything is written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack, cast

from farm.artifacts.base import ArtifactStore
from farm.config import Settings
from farm.errors import BadRequest, BadSource, UnknownArch
from farm.formats.base import Format
from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.build import Build, BuildOptions, BuildRequest
from farm.model.place import DEFAULT_PROJECT
from farm.model.project import PACKAGE_NAME, Project, ProjectPackage
from farm.model.source import Source, SourceKind, without_credentials
from farm.model.target import LIMIT_RANGES, OwnLimits, Target
from farm.repositories.checks import check_format
from farm.service.limits import GivenLimits, check_limits
from farm.service.source import check_local, check_source, check_srpm, git_source, store_srpm
from farm.steps.registry import step_type
from farm.targets.load import find_target, pick_arches

PRIORITY_MAX = 1000
OPTIONS_MAX = 200
OPTIONS_MAX_CHARS = 64 * 2**10
_, TIMEOUT_MAX_S = LIMIT_RANGES["wall_s"]
_OWNER_MAX = 64


class PackageArguments(TypedDict, total=False):
    """The arguments that a package of a project keeps: its source and its options.

    Give either `git` (URL or local repository) or `srpm` (URL or file). `ref` is a branch, tag or commit; without it
    the remote's HEAD is built. `subdir` and `spec` are relative to the tree. Without `arches` a build is for all that
    the target has. `defines` are RPM macros. `timeout_s` replaces the target's limit of the build step. `limits`, such
    as `{"memory_bytes": 8 * 2**30}`, replace those of target and package.
    """

    git: str | Path | None
    srpm: str | Path | None
    ref: str | None
    subdir: str | None
    spec: str | None
    arches: Sequence[str | Arch]
    with_: Sequence[str]
    without: Sequence[str]
    defines: Sequence[tuple[str, str]] | Mapping[str, str]
    timeout_s: int | None
    limits: GivenLimits | None


class RequestArguments(PackageArguments, total=False):
    """The arguments of a request for one build, as `Farm.request` and `Farm.enqueue` take them by name.

    Give `target` and a source. With a `project` the build belongs to it; the target may be left out if the project has
    one. A `package` of the project has a source and options, of which the given ones take the place. A higher
    `priority` goes first; 0 is usual.
    """

    target: str | None
    project: str | None
    package: str | None
    priority: int


def request_of(build: Build, *, uid: int | None) -> BuildRequest:
    """The request of a build, for an actor with this user of the machine."""
    return BuildRequest(
        source=replace(build.source, reader_uid=uid),
        target=build.target,
        arches=build.arches,
        options=build.options,
        project=build.project,
    )


def source_arguments(
    target: str, url: str, *, is_package: bool, ref: str | None = None, subdir: str | None = None
) -> RequestArguments:
    """The arguments for a source package, or for a git repository, at this URL."""
    if is_package:
        return {"target": target, "srpm": url}
    return {"target": target, "git": url, "ref": ref, "subdir": subdir}


def make_request(
    settings: Settings,
    artifacts: Callable[[], ArtifactStore],
    *,
    uid: int | None,
    uploaded: Callable[[Format], Source] | None = None,
    **asked: Unpack[RequestArguments],
) -> BuildRequest:
    """The request, with everything checked, for an actor with this user of the machine. A local src.rpm is stored last:
    it is the first thing that is written. `uploaded` gives the source for the target's format if it is an upload.

    Raises TypeError for an argument that no request has, and what `FarmService.request` raises.
    """
    check_names(asked)
    name = asked.get("target")
    if name is None:
        raise BadRequest("a build needs a target: --target T; `farm targets` lists them")
    check_has_source(asked, is_uploaded=uploaded is not None)
    target = find_publishable(settings, name)
    form = format_of(target.format)
    checked = uploaded(form) if uploaded is not None else _checked_source(asked, form, uid)
    priority = asked.get("priority", 0)
    check_priority(priority)
    return BuildRequest(
        target=name,
        project=asked.get("project") or DEFAULT_PROJECT,
        package=asked.get("package"),
        format=target.format,
        arches=pick_arches(target, asked.get("arches", ())),
        options=_options_of(form, asked),
        priority=priority,
        source=checked if isinstance(checked, Source) else store_srpm(checked, artifacts()),
    )


def find_publishable(settings: Settings, name: str) -> Target:
    """The target, if its packages can be published. Raises UnknownTarget, BadTarget, BadRequest."""
    target = find_target(settings, name)
    check_format(settings.repositories, target.format)
    return target


def make_package(
    targets: Sequence[Target], *, uid: int | None, **asked: Unpack[PackageArguments]
) -> tuple[Source, tuple[Arch, ...], BuildOptions]:
    """The source, arches and options of a package, checked for an actor with this user of the machine and for these
    targets. Nothing is stored. Raises BadRequest, BadSource, UnknownArch.
    """
    check_package_names(asked)
    check_has_source(asked)
    form = format_of(targets[0].format if targets else Target.format)
    checked = _checked_source(asked, form, uid)
    if isinstance(checked, Source):
        source = replace(checked, reader_uid=None)
    else:
        source = Source(kind=SourceKind.SRPM, url=str(checked))
    if source.url and without_credentials(source.url) != source.url:
        raise BadSource(
            f"{source.shown!r} has credentials, which a package does not keep; "
            "leave them out, or give the whole URL to `farm build --git`"
        )
    arches = tuple(dict.fromkeys(arch for name in asked.get("arches", ()) if (arch := arch_named(name)) is not None))
    known = {arch for target in targets for arch in target.arches} or set(Arch)
    if wrong := [arch for arch in arches if arch not in known]:
        raise UnknownArch(f"no target of the project is built for {wrong[0]}; they have {', '.join(sorted(known))}")
    return source, arches, _options_of(form, asked)


def arguments_of(package: ProjectPackage) -> PackageArguments:
    """The arguments that a package keeps."""
    source, options = package.source, package.options
    return {
        "git": source.url if source.kind is SourceKind.GIT else None,
        "srpm": source.url if source.kind is SourceKind.SRPM else None,
        "ref": source.ref,
        "subdir": source.subdir,
        "spec": source.spec,
        "arches": package.arches,
        "with_": options.with_,
        "without": options.without,
        "defines": options.defines,
        "timeout_s": options.timeout_s,
        "limits": options.limits,
    }


def target_in(project: Project, target: str | None) -> str | None:
    """The target of a build in the project: the given one, or its only one. None without any in the default project.

    Raises BadRequest.
    """
    if project.name == DEFAULT_PROJECT or target in project.targets:
        return target
    if target is None and len(project.targets) == 1:
        return project.targets[0]
    targets = ", ".join(project.targets)
    if target is None:
        raise BadRequest(f"the project {project.name} builds for {targets}; choose one with --target")
    raise BadRequest(
        f"the project {project.name} does not build for {target[:80]!a}, but for {targets}; "
        f"`farm project set {project.name} --target …` changes that"
    )


def with_package(package: ProjectPackage, target: Target, asked: RequestArguments) -> RequestArguments:
    """The arguments of a package for this target, with those that were given in their place.

    Raises BadRequest for another source, and UnknownArch for a package of arches that the target does not have.
    """
    if asked.get("git") or asked.get("srpm"):
        raise two_sources()
    usual = arguments_of(package)
    usual["arches"] = [arch for arch in package.arches if arch in target.arches]
    if package.arches and not usual["arches"]:
        raise UnknownArch(
            f"package {package.name} is for {', '.join(package.arches)}, and target {target.name} has "
            f"{', '.join(target.arches)}; give --arch, or another --target"
        )
    given = {name: value for name, value in asked.items() if value}
    if given.get("timeout_s") or (asked.get("limits") and "wall_s" in _limits_given(asked)):
        usual["timeout_s"] = None
    return cast("RequestArguments", {**usual, **given})


def two_sources() -> BadRequest:
    """The error for a package of a project with another source."""
    return BadRequest("--package names a source of its own: leave --git and --srpm out, or --package")


def _limits_given(asked: PackageArguments) -> Mapping[str, int]:
    limits = asked.get("limits") or {}
    return limits.given if isinstance(limits, OwnLimits) else dict(limits)


def check_names(asked: RequestArguments) -> None:
    """Raises TypeError. Python checks the names of a function's parameters, and not those of a TypedDict."""
    _check_known(asked.keys(), RequestArguments.__annotations__, "a request")
    if "target" not in asked and not asked.get("project"):
        raise TypeError("a request lacks its argument 'target'")


def check_package_names(asked: PackageArguments) -> None:
    """Raises TypeError."""
    _check_known(asked.keys(), PackageArguments.__annotations__, "a package")


def _check_known(names: Iterable[str], known: Mapping[str, object], whose: str) -> None:
    if unknown := sorted(set(names) - known.keys()):
        raise TypeError(f"{unknown[0]!r} is not an argument of {whose}; use {', '.join(known)}")


def check_has_source(asked: PackageArguments, *, is_uploaded: bool = False) -> None:
    """Raises BadRequest for no source, for more than one, and for a source package with a place in a tree."""
    if (asked.get("git") is not None) + (asked.get("srpm") is not None) + is_uploaded != 1:
        raise BadRequest("give either a git repository or a src.rpm: --git URL or --srpm PATH|URL")
    if is_uploaded:
        _check_no_tree(asked)


def _check_no_tree(asked: PackageArguments) -> None:
    if asked.get("ref") or asked.get("subdir") or asked.get("spec"):
        raise BadRequest("a src.rpm has no ref, subdir or spec: leave --ref, --subdir and --spec out")


def _checked_source(asked: PackageArguments, form: Format, uid: int | None) -> Source | str | Path:
    """A git source, or the address or file of a source package."""
    git = asked.get("git")
    if git is not None:
        check_local(git, SourceKind.GIT, uid)
        return git_source(git, form, ref=asked.get("ref"), subdir=asked.get("subdir"), spec=asked.get("spec"))
    _check_no_tree(asked)
    srpm = asked.get("srpm") or ""
    check_local(srpm, SourceKind.SRPM, uid)
    return check_srpm(srpm, form)


def _options_of(form: Format, asked: PackageArguments) -> BuildOptions:
    defines = asked.get("defines", ())
    return make_options(
        form,
        with_=asked.get("with_", ()),
        without=asked.get("without", ()),
        defines=tuple(defines.items()) if isinstance(defines, Mapping) else tuple(defines),
        timeout_s=asked.get("timeout_s"),
        limits=asked.get("limits"),
    )


def make_options(
    form: Format,
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
    if timeout_s is not None and timeout_s not in range(1, TIMEOUT_MAX_S + 1):
        raise BadRequest(f"--timeout {timeout_s} is out of range; use 1 to {TIMEOUT_MAX_S} seconds")
    own = check_limits(limits or {})
    if own.wall_s is not None and timeout_s is not None:
        raise BadRequest("--timeout and --limit wall are the same; leave one of them out")
    options = BuildOptions(
        with_=tuple(with_),
        without=tuple(without),
        defines=tuple((n, v) for n, v in defines),
        timeout_s=own.wall_s if timeout_s is None else int(timeout_s),
        limits=replace(own, wall_s=None),
    )
    _check_size(options)
    form.check_options(options)
    return options


def _check_size(options: BuildOptions) -> None:
    """Every step of the build is given all of them, and each is an argument of a command."""
    for option, given in (("--with", options.with_), ("--without", options.without), ("--define", options.defines)):
        if len(given) > OPTIONS_MAX:
            raise BadRequest(f"{len(given)} times {option} is too much; use at most {OPTIONS_MAX}")
    texts = (*options.with_, *options.without, *(text for pair in options.defines for text in pair))
    if (chars := sum(map(len, texts))) > OPTIONS_MAX_CHARS:
        raise BadRequest(f"the options of the build have {chars} characters; use at most {OPTIONS_MAX_CHARS} in all")


def check_request(target: Target, request: BuildRequest, *, uid: int | None) -> BuildRequest:
    """The same request for this target, with the arches filled in. `uid` is the actor's user of this machine.

    Raises UnknownArch, BadSource, BadRequest.
    """
    arches = pick_arches(target, request.arches)
    given = request.options
    form = format_of(target.format)
    options = make_options(
        form,
        with_=given.with_,
        without=given.without,
        defines=given.defines,
        timeout_s=given.timeout_s,
        limits=given.limits,
    )
    check_priority(request.priority)
    if request.package is not None and not PACKAGE_NAME.fullmatch(request.package):
        raise BadRequest(f"{request.package[:80]!a} is no package's name")
    check_source(request.source, form, uid)
    return replace(request, arches=arches, options=options, format=target.format)


def check_priority(priority: int) -> None:
    """Raises BadRequest."""
    if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise BadRequest(f"--priority {priority} is out of range; use {-PRIORITY_MAX} to {PRIORITY_MAX}, 0 is usual")


def check_owner(name: str) -> str:
    """The same name, if it can be the owner of a build. Raises BadRequest."""
    if not name or len(name) > _OWNER_MAX or not name.isprintable():
        raise BadRequest(f"owner {name[:80]!r} is empty, too long or unprintable; use 1 to {_OWNER_MAX} characters")
    return name


def step_kind(step: str | None) -> str | None:
    """Raises BadRequest for a name that no step type has."""
    try:
        return step_type(step).name if step is not None else None
    except ValueError as error:
        raise BadRequest(str(error)) from error


def arch_named(arch: str | None) -> Arch | None:
    """Raises UnknownArch."""
    try:
        return Arch(arch) if arch is not None else None
    except ValueError as error:
        raise UnknownArch(f"{arch!r} is not an architecture; there are {', '.join(Arch)}") from error
