"""`farm repo`: show a repository and its versions, roll it back, and check the back end."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from farm.cli.options import ArchOption, JsonOption, ProjectOption, TargetArgument
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean
from farm.config import Settings
from farm.errors import BadRequest, RepositoryTrouble
from farm.model.place import DEFAULT_PROJECT, place_of

if TYPE_CHECKING:
    from farm.client import Rollback
    from farm.repositories import RepositoryName, RepositoryVersion

_SHOW = "show"
KindOption = Annotated[
    str,
    typer.Option(
        "--kind",
        "-k",
        metavar="K",
        help="os, debug or source.",
        autocompletion=lambda incomplete: [kind for kind in ("os", "debug", "source") if kind.startswith(incomplete)],
    ),
]


class RepoGroup(TyperGroup):
    """`farm repo demo` is `farm repo show demo`: a first word that is not a command is an argument of `show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_SHOW, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        # The group completes its first word to the targets that `show` takes.
        first = self.commands[_SHOW].params[0]
        return [*super().shell_complete(ctx, incomplete), *first.shell_complete(ctx, incomplete)]


repo = typer.Typer(cls=RepoGroup, no_args_is_help=True, rich_markup_mode=None)


@repo.callback()
def about() -> None:
    """Show, list, roll back and check package repositories.

    `farm repo TARGET` is `farm repo show TARGET`. Each target has a repository of packages for each arch (os), one of
    their debuginfo (debug), and one of source packages (source). Every addition makes a new version; the target sets
    the number of versions that are kept.

    \b
    Examples:
      farm repo demo                        where to install from, as a .repo file
      farm repo versions demo               what there was before
      farm repo rollback demo --to 3        have clients get that again
      farm repo check                       whether the farm can publish
    """


@repo.command(_SHOW)
def show(
    target: TargetArgument, arch: ArchOption = None, project: ProjectOption = None, json: JsonOption = False
) -> None:
    """Show how to install a target's packages.

    Prints the address, a .repo file that is ready to use, and the dnf command.

    \b
    Examples:
      farm repo demo
      farm repo almalinux-9 --arch aarch64 --json
      farm repo show check                  a target that is called like a command
    """
    from farm.service import documents

    with connected() as farm:
        found = farm.repository(target, arch, project=project or DEFAULT_PROJECT)
        others = [one for one in farm.target(target).arches if one is not found.arch]
    if json:
        emit({"repository": documents.repository(found)})
        return
    out = console()
    out.print(f"{place_of(found.project, target)} {found.arch}, version {found.version}", style="bold")
    out.print(f"  {found.baseurl}\n", soft_wrap=True)
    out.print(f"# /etc/yum.repos.d/{found.id}.repo", style="dim")
    out.print(found.repo_file, soft_wrap=True)
    out.print("# or without a file", style="dim")
    out.print(found.install_command(), soft_wrap=True)
    if not arch and others:
        say(f"\nfor other arches: --arch {' or '.join(others)}")


@repo.command()
def versions(
    target: TargetArgument,
    arch: ArchOption = None,
    kind: KindOption = "os",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """List the versions of a repository that are kept.

    The newest version is first; clients get the current one.

    \b
    Examples:
      farm repo versions demo
      farm repo versions demo --kind debug --arch aarch64 --json
    """
    from farm.service import documents

    with connected() as farm:
        name = project or DEFAULT_PROJECT
        path = farm.repository_name(target, arch, kind=kind, project=name).path
        found = farm.repository_versions(target, arch, kind=kind, project=name)
    if json:
        emit({"repository": path, "versions": [documents.version(one) for one in found]})
    elif found:
        from farm.cli import tables

        console().print(tables.version_table(found, console().width))
    else:
        console().print(f"{path} has no version yet; the first successful build makes one")


@repo.command()
def rollback(
    target: TargetArgument,
    to: Annotated[int, typer.Option("--to", metavar="N", help="The version to roll back to.", show_default=False)],
    arch: ArchOption = None,
    kind: KindOption = "os",
    project: ProjectOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Roll a repository back to the content of an older version.

    Makes a new version with the old one's content: clients and later builds get it at once, and later additions build
    on it. To undo it, roll back to the version that was current before.

    \b
    Examples:
      farm repo rollback demo --to 3
      farm repo rollback demo --to 3 --kind debug --arch aarch64 --yes
    """
    with connected() as farm:
        of = project or DEFAULT_PROJECT
        name = farm.repository_name(target, arch, kind=kind, project=of)
        if not yes and not _confirm(
            name, farm.repository_versions(target, arch, kind=kind, project=of), to, is_json=json
        ):
            say("nothing was changed")
            return
        done = farm.rollback(target, to=to, arch=arch, kind=kind, project=of)
    undo = _undo(done, name, kind)
    if json:
        from farm.service import documents

        emit({"rollback": documents.rollback(done, undo)})
    elif done.has_changed:
        after = f"version {done.after.number} has what version {to} had, {_packages(done.after)}"
        before = f"version {done.before.number} had {_packages(done.before)}"
        console().print(f"{done.path}: {after}; {before}", soft_wrap=True)
        console().print(f"  undo         {undo}", soft_wrap=True)
    else:
        console().print(f"{done.path}: version {done.after.number} has this content already; nothing was changed")


@repo.command()
def check(json: JsonOption = False) -> None:
    """Check whether the farm can publish from this host.

    Checks that the repository back end of the settings answers, is recent enough, and gives the farm the rights that it
    needs. Works without a running farm. Exits with 46 when a check fails.

    \b
    Example:
      farm repo check
    """
    from farm.service import documents
    from farm.service.repository import check_repositories

    settings = Settings.from_env()
    if settings.url:
        with connected() as farm:
            found = farm.check_repositories()
    else:
        found = check_repositories(settings)
    if json:
        emit({"checks": [documents.check(one) for one in found]})
    else:
        from farm.cli import tables

        console().print(tables.check_table(found, console().width))
    bad = [one for one in found if not one.is_ok]
    for one in bad:
        say(f"error: {clean(one.what)}: {clean(one.found)}" + (f"; {clean(one.remedy)}" if one.remedy else ""))
    if bad:
        raise typer.Exit(RepositoryTrouble.exit_code)


def _confirm(name: "RepositoryName", found: "tuple[RepositoryVersion, ...]", to: int, *, is_json: bool) -> bool:
    """Show the changes, and ask for confirmation. Raises NotFound, and BadRequest without a terminal to ask on."""
    from farm.service.repository import current_of, pick_version

    wanted, now = pick_version(name, found, to), current_of(found)
    if is_json or not sys.stdin.isatty():
        raise BadRequest(f"rolling {name.path} back to version {to} changes what clients get; add --yes")
    before = f"{_packages(now)} (version {now.number})" if now else "nothing"
    say(f"clients of {name.path} get {before} now, and would get {_packages(wanted)} (version {to})")
    return typer.confirm("Roll back?", err=True)


def _undo(done: "Rollback", name: "RepositoryName", kind: str) -> str:
    """The command that undoes the rollback."""
    arch = f" --arch {done.arch}" if done.arch else ""
    where = f" --project {name.project}" if name.project != DEFAULT_PROJECT else ""
    return f"farm repo rollback {name.target}{where}{arch} --kind {kind} --to {done.before.number} --yes"


def _packages(version: "RepositoryVersion") -> str:
    return "1 package" if version.packages == 1 else f"{version.packages} packages"
