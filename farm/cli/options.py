"""Arguments and options that several commands share, and their completion. If completion fails, it prints nothing."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.session import connected, session
from farm.config import Settings
from farm.errors import BadRequest
from farm.model.arch import Arch

if TYPE_CHECKING:
    from farm.model.project import ProjectPackage
    from farm.service.request import PackageArguments

_THING = re.compile(r"(?P<kind>build:|batch:|b|)(?P<number>[0-9]{1,18})")


def _note_json(ctx: typer.Context, value: bool) -> bool:
    # The flag is stored before the command runs, so that every error is JSON too.
    session(ctx).is_json = value
    return value


def complete_target(incomplete: str) -> list[str]:
    with suppress(Exception):
        from farm.targets.load import survey_targets

        return [name for name in survey_targets(Settings.from_env()) if name.startswith(incomplete)]
    return []


def complete_build(incomplete: str) -> list[tuple[str, str]]:
    with suppress(Exception):
        return list(_builds(incomplete))
    return []


def _builds(incomplete: str) -> Iterator[tuple[str, str]]:
    with connected() as farm:
        for build in farm.builds(limit=30):
            if str(build.id).startswith(incomplete):
                yield str(build.id), f"{build.package} {build.target} {build.outcome or build.status}"


def complete_project(incomplete: str) -> list[str]:
    with suppress(Exception), connected() as farm:
        return [one.name for one in farm.projects() if one.name.startswith(incomplete)]
    return []


def complete_arch(incomplete: str) -> list[str]:
    return [arch for arch in Arch if arch.startswith(incomplete)]


def complete_limit(incomplete: str) -> list[str]:
    names = ("memory=", "silence=", "log=", "disk=", "files=", "processes=", "wall=", "results=", "metadata=")
    return [name for name in names if name.startswith(incomplete)]


def parse_build(text: str) -> int:
    """`12` or `build:12`. Raises BadRequest."""
    is_batch, number = parse_thing(text)
    if is_batch:
        raise BadRequest(f"{text!r} is a batch; this command takes a build, and `farm status {text}` shows those in it")
    return number


def parse_thing(text: str) -> tuple[bool, int]:
    """True and the number for a batch (`batch:3`, `b3`); False and the number for a build (`12`, `build:12`).

    Raises BadRequest.
    """
    found = _THING.fullmatch(text.strip())
    if not found:
        raise BadRequest(f"{text[:80]!r} is neither a build nor a batch; use a number for a build, batch:3 for a batch")
    return found["kind"] in ("batch:", "b"), int(found["number"])


def build_defines(texts: Sequence[str], jobs: int | None) -> list[tuple[str, str]]:
    """The macros of --define and of --jobs. Raises BadRequest."""
    from farm.formats.rpm.options import parse_define

    own = [("_smp_build_ncpus", str(jobs))] if jobs is not None else []
    return [*own, *(parse_define(text) for text in texts)]


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document (docs/json.md).", callback=_note_json, is_eager=True)
]
BuildArgument = Annotated[
    str, typer.Argument(metavar="BUILD", help="The build's number.", autocompletion=complete_build, show_default=False)
]
ThingArgument = Annotated[
    str,
    typer.Argument(
        metavar="[BATCH|BUILD]",
        help="A build's number, or a batch as batch:3 or b3; without it, the whole farm.",
        autocompletion=complete_build,
        show_default=False,
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target", "-t", metavar="T", help="The target to build for; `farm targets` lists them.",
        autocompletion=complete_target, show_default=False,
    ),
]  # fmt: skip
MaybeTargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", metavar="T", autocompletion=complete_target, show_default=False,
        help="The target to build for; `farm targets` lists them. Not needed in a project with one target.",
    ),
]  # fmt: skip
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project", "-p", metavar="P", help="The project; default: main.", autocompletion=complete_project,
        show_default=False,
    ),
]  # fmt: skip
NamedOption = Annotated[
    str | None,
    typer.Option(
        "--package", metavar="NAME", help="A package of the project, instead of a source.", show_default=False
    ),
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="A target's name.", autocompletion=complete_target, show_default=False)
]


ProjectArgument = Annotated[
    str,
    typer.Argument(metavar="PROJECT", help="A project's name.", autocompletion=complete_project, show_default=False),
]


def _step(name: str | None) -> str | None:
    if name is None:
        return None
    from farm.steps.registry import step_type  # late: it imports all step types and formats

    try:
        return step_type(name).name
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


StepOption = Annotated[
    str | None,
    typer.Option(
        "--step", "-s", metavar="S", help="The step, such as build or upload.", show_default=False, callback=_step
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch", "-a", metavar="A", help="x86_64, aarch64 or ppc64le.", autocompletion=complete_arch,
        show_default=False,
    ),
]  # fmt: skip
GitOption = Annotated[
    str | None, typer.Option(metavar="URL", help="A git repository: a URL, or a local path.", show_default=False)
]
RefOption = Annotated[
    str | None, typer.Option(metavar="REF", help="Branch, tag or commit; default: HEAD.", show_default=False)
]
SubdirOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="The folder of the package in the tree.", show_default=False)
]
SpecOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="The spec file, if there are several.", show_default=False)
]
RecipeOption = Annotated[
    str | None, typer.Option("--spec", metavar="FILE", help="The spec file, if there are several.", show_default=False)
]
SourcePackageOption = Annotated[
    str | None, typer.Option("--srpm", metavar="PATH|URL", help="A src.rpm instead of a folder.", show_default=False)
]
PackageArgument = Annotated[
    str | None, typer.Argument(metavar="[SRC.RPM]", help="A src.rpm: the same as --srpm.", show_default=False)
]
SrpmOption = Annotated[
    str | None, typer.Option(metavar="PATH|URL", help="A src.rpm instead of git.", show_default=False)
]
ArchesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--arch", "-a", metavar="A", help="Build for this arch; repeat for more. Default: all arches of the target.",
        autocompletion=complete_arch, show_default=False,
    ),
]  # fmt: skip
WithOption = Annotated[
    list[str] | None, typer.Option("--with", metavar="X", help="Switch a bcond on.", show_default=False)
]
WithoutOption = Annotated[
    list[str] | None, typer.Option("--without", metavar="X", help="Switch a bcond off.", show_default=False)
]
DefineOption = Annotated[
    list[str] | None, typer.Option(metavar="'N V'", help="Set RPM macro N to V.", show_default=False)
]
TimeoutOption = Annotated[
    int | None, typer.Option(metavar="S", help="Limit of the build step in seconds.", show_default=False)
]
PriorityOption = Annotated[int, typer.Option(metavar="N", help="-1000 to 1000; a higher priority goes first.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="NAME=VALUE", show_default=False, autocompletion=complete_limit,
        help="Replace a limit of target and package: memory=8GiB, silence=2h, log=, disk=, files=, processes=, "
        "results=, metadata=.",
    ),
]  # fmt: skip
WaitOption = Annotated[
    bool,
    typer.Option("--wait", "-w", help="Show the steps until the build has finished; the exit code says how it ended."),
]


def package_arguments(
    *, git: str | None, package: str | None, ref: str | None, subdir: str | None, recipe: str | None
) -> "PackageArguments":
    """The arguments that name a source: a git repository, or a source package."""
    return {"git": git, "srpm": package, "ref": ref, "subdir": subdir, "spec": recipe}


def package_words(package: "ProjectPackage") -> list[str]:
    """The options of `farm package add` that make this package."""
    from farm.service.limits import limit_words
    from farm.service.request import arguments_of

    source, options = arguments_of(package), package.options
    words = [
        word
        for name in ("git", "srpm", "ref", "subdir", "spec")
        if source[name]
        for word in (f"--{name}", str(source[name]))
    ]
    words += [word for arch in package.arches for word in ("--arch", arch)]
    words += [word for name in options.with_ for word in ("--with", name)]
    words += [word for name in options.without for word in ("--without", name)]
    words += [word for name, value in options.defines for word in ("--define", f"{name} {value}")]
    words += ["--timeout", str(options.timeout_s)] if options.timeout_s is not None else []
    return words + [
        word for name, value in options.limits.given.items() for word in ("--limit", limit_words(name, value))
    ]
