"""`farm project`: projects, their settings and their members."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import JsonOption, ProjectArgument, complete_project, complete_target
from farm.cli.session import answer, connected, console, emit
from farm.cli.text import clean
from farm.errors import BadRequest
from farm.model.actor import Role

if TYPE_CHECKING:
    from farm.model.project import Project, ProjectEdit

project = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Up to 64 of a-z, 0-9 and -.", show_default=False)]
ActorArgument = Annotated[
    str, typer.Argument(metavar="ACTOR", help="A person's or a program's name.", show_default=False)
]
TitleOption = Annotated[str | None, typer.Option(metavar="TEXT", help="Its purpose, in few words.", show_default=False)]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", metavar="T", help="A target that it builds for; repeat for more.",
        autocompletion=complete_target, show_default=False,
    ),
]  # fmt: skip
BuildsOnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--builds-on", metavar="P", help="A project whose packages its roots see; repeat for more, in order.",
        autocompletion=complete_project, show_default=False,
    ),
]  # fmt: skip
RootPackageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--root-package", metavar="NAME", show_default=False,
        help="A package of which roots consist, to take from the project and not from the target; repeat for more.",
    ),
]  # fmt: skip


@project.callback()
def about_projects() -> None:
    """Make, show and change projects.

    A project has members, targets, packages, and repositories of its own. Its builds see the target's packages, its
    own, and those of the projects that it builds on, and no others. Builds that name no project belong to `main`
    (docs/projects.md).

    \b
    Examples:
      farm project new mylib --target demo
      farm project grant mylib ann maintainer
      farm project set mylib --builds-on main
      farm project show mylib
    """


@project.command()
def new(
    name: NameArgument,
    target: TargetsOption = None,
    title: TitleOption = None,
    builds_on: BuildsOnOption = None,
    root_package: RootPackageOption = None,
    private: Annotated[bool, typer.Option("--private", help="Show it to its members alone.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a project.

    \b
    Examples:
      farm project new mylib --target demo --title "My library"
      farm project new apps --target demo --builds-on mylib --builds-on main
    """
    with connected() as farm:
        made = farm.new_project(
            name,
            targets=target or (),
            title=title or "",
            builds_on=builds_on or (),
            root_packages=root_package or (),
            is_private=private,
        )
    _say_done(made, f"farm project remove {name}", f"project {name} for {clean(', '.join(made.targets))}", is_json=json)


@project.command("list")
def list_projects(json: JsonOption = False) -> None:
    """List the projects that you may see.

    \b
    Example:
      farm project list
    """
    with connected() as farm:
        found = farm.projects()
    if json:
        from farm.service import documents

        emit({"projects": [documents.project(one) for one in found]})
    else:
        from farm.cli import tables

        console().print(tables.project_table(found, console().width))


@project.command()
def show(name: ProjectArgument, json: JsonOption = False) -> None:
    """Show a project's settings, members and packages.

    \b
    Example:
      farm project show mylib
    """
    with connected() as farm:
        found, packages = farm.project(name), farm.packages(name)
    if json:
        from farm.service import documents

        emit({"project": documents.project(found), "packages": [documents.package(one) for one in packages]})
    else:
        from farm.cli import tables

        console().print(f"project {found.name}", style="bold")
        console().print(tables.project_details(found, packages))


@project.command("set")
def set_(
    name: ProjectArgument,
    target: TargetsOption = None,
    title: TitleOption = None,
    builds_on: BuildsOnOption = None,
    no_builds_on: Annotated[bool, typer.Option("--no-builds-on", help="Build on no other project.")] = False,
    root_package: RootPackageOption = None,
    no_root_packages: Annotated[
        bool, typer.Option("--no-root-packages", help="Take all packages of which roots consist from the target.")
    ] = False,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Show it to its members alone, or to all.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Change settings of a project; the others stay as they are.

    A list that is given replaces the whole list. Prints the command that undoes the change.

    \b
    Examples:
      farm project set mylib --builds-on base --builds-on main
      farm project set mylib --no-builds-on
      farm project set mylib --target demo --target almalinux-9
    """
    _check_either(builds_on, no_builds_on, "builds-on")
    _check_either(root_package, no_root_packages, "root-packages")
    with connected() as farm:
        edit = farm.set_project(
            name,
            title=title,
            targets=target,
            builds_on=() if no_builds_on else builds_on,
            root_packages=() if no_root_packages else root_package,
            is_private=private,
        )
    words = _setting_words(edit)
    undo = shlex.join(["farm", "project", "set", name, *words]) if words else ""
    _say_done(
        edit.after, undo, f"project {name} is changed" if words else f"project {name} was so before", is_json=json
    )


@project.command()
def grant(
    name: ProjectArgument,
    actor: ActorArgument,
    role: Annotated[Role, typer.Argument(metavar="ROLE", help="packager or maintainer.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Give a person or a program a role in a project.

    A packager enqueues builds, and cancels and retries their own. A maintainer does so with all builds of the project,
    and changes its settings, members and packages.

    \b
    Example:
      farm project grant mylib ann maintainer
    """
    with connected() as farm:
        edit = farm.grant(name, actor, role)
    _say_done(edit.after, _role_undo(edit, actor), f"{clean(actor)} is {role} of project {name}", is_json=json)


@project.command()
def revoke(name: ProjectArgument, actor: ActorArgument, json: JsonOption = False) -> None:
    """Take a member's role in a project away.

    \b
    Example:
      farm project revoke mylib ann
    """
    with connected() as farm:
        edit = farm.revoke(name, actor)
    _say_done(
        edit.after, _role_undo(edit, actor), f"{clean(actor)} is no member of project {name} any more", is_json=json
    )


@project.command()
def remove(name: ProjectArgument, json: JsonOption = False) -> None:
    """Remove a project: it takes no more builds, and is not listed.

    Its builds, repositories, members and packages stay, so that `farm project restore` undoes it.

    \b
    Example:
      farm project remove mylib
    """
    with connected() as farm:
        edit = farm.remove_project(name)
    _say_done(edit.after, f"farm project restore {name}", f"project {name} is removed", is_json=json)


@project.command()
def restore(name: ProjectArgument, json: JsonOption = False) -> None:
    """Bring a removed project back.

    \b
    Example:
      farm project restore mylib
    """
    with connected() as farm:
        edit = farm.restore_project(name)
    _say_done(edit.after, f"farm project remove {name}", f"project {name} is back", is_json=json)


def _role_undo(edit: "ProjectEdit", actor: str) -> str:
    """The command that gives the member the role that it had."""
    had = {one.actor: one.role for one in edit.before.members}.get(actor)
    words = ["grant", edit.after.name, actor, had] if had is not None else ["revoke", edit.after.name, actor]
    return shlex.join(["farm", "project", *words])


def _setting_words(edit: "ProjectEdit") -> list[str]:
    """The options that set what was changed to what it was."""
    was, now = edit.before, edit.after
    words = ["--title", was.title] if was.title != now.title else []
    words += _list_words("--target", was.targets, now.targets)
    words += _list_words("--builds-on", was.builds_on, now.builds_on) or (
        ["--no-builds-on"] if was.builds_on != now.builds_on else []
    )
    words += _list_words("--root-package", was.root_packages, now.root_packages) or (
        ["--no-root-packages"] if was.root_packages != now.root_packages else []
    )
    if was.is_private != now.is_private:
        words.append("--private" if was.is_private else "--public")
    return words


def _list_words(option: str, was: Sequence[str], now: Sequence[str]) -> list[str]:
    return [word for name in was for word in (option, name)] if was != now else []


def _check_either(given: Sequence[str] | None, has_none: bool, name: str) -> None:
    if given and has_none:
        raise BadRequest(f"--no-{name} takes all away; leave it or the others out")


def _say_done(value: "Project", undo: str, words: str, *, is_json: bool) -> None:
    from farm.service import documents

    answer({"project": documents.project(value)}, undo, words, is_json=is_json)
