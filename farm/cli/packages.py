"""`farm package`: the packages of a project."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    ArchesOption,
    DefineOption,
    GitOption,
    JsonOption,
    LimitOption,
    ProjectArgument,
    RecipeOption,
    RefOption,
    SourcePackageOption,
    SubdirOption,
    TimeoutOption,
    WithOption,
    WithoutOption,
    build_defines,
    package_arguments,
    package_words,
)
from farm.cli.session import answer, connected, console, emit
from farm.cli.text import clean

if TYPE_CHECKING:
    from farm.model.project import ProjectPackage

package = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

PackageArgument = Annotated[str, typer.Argument(metavar="NAME", help="The package's name.", show_default=False)]


@package.callback()
def about() -> None:
    """Add, show and remove packages of a project.

    A package is a name for a source and the options with which it is built.

    \b
    Examples:
      farm package add mylib hello --git https://example.org/hello.git --ref main
      farm package list mylib
    """


@package.command()
def add(
    project: ProjectArgument,
    name: PackageArgument,
    git: GitOption = None,
    ref: RefOption = None,
    subdir: SubdirOption = None,
    recipe: RecipeOption = None,
    source_package: SourcePackageOption = None,
    arch: ArchesOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    define: DefineOption = None,
    timeout: TimeoutOption = None,
    limit: LimitOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the package of this name.")] = False,
    json: JsonOption = False,
) -> None:
    """Add a package to a project. It is checked, and not built.

    The options are those of `farm build`. A path is read, at each build, with the rights of the person who builds.

    \b
    Examples:
      farm package add mylib hello --git https://example.org/hello.git --ref main
      farm package add mylib hello --git https://example.org/hello.git --ref v3 --without tests --replace
    """
    from farm.service.limits import parse_limits

    asked = package_arguments(git=git, package=source_package, ref=ref, subdir=subdir, recipe=recipe)
    asked |= {"arches": arch or (), "with_": with_ or (), "without": without or (), "timeout_s": timeout}
    asked |= {"defines": build_defines(define or (), None), "limits": parse_limits(limit or ())}
    with connected() as farm:
        before = None
        if replace:
            before = next((one for one in farm.packages(project) if one.name == name), None)
        made = farm.add_package(project, name, replaces=replace, **asked)
    undo = _add_command(before, "--replace") if before else f"farm package remove {project} {name}"
    _say_done(made, undo, f"package {name} of project {project}: {clean(made.source.shown)}", is_json=json)


@package.command("list")
def list_(project: ProjectArgument, json: JsonOption = False) -> None:
    """List the packages of a project.

    \b
    Example:
      farm package list mylib
    """
    with connected() as farm:
        found = farm.packages(project)
    if json:
        from farm.service import documents

        emit({"packages": [documents.package(one) for one in found]})
    elif found:
        from farm.cli import tables

        console().print(tables.package_table(found, console().width))
    else:
        console().print(f"project {clean(project)} has no packages; `farm package add -h` shows how to add one")


@package.command()
def show(project: ProjectArgument, name: PackageArgument, json: JsonOption = False) -> None:
    """Show a package: its source, and the options with which it is built.

    \b
    Example:
      farm package show mylib hello
    """
    with connected() as farm:
        found = farm.package(project, name)
    if json:
        from farm.service import documents

        emit({"package": documents.package(found)})
    else:
        console().print(f"package {found.name} of project {found.project}", style="bold")
        console().print(f"  source   {clean(found.source.shown)}", soft_wrap=True)
        console().print(f"  options  {clean(shlex.join(package_words(found)))}", soft_wrap=True)


@package.command()
def remove(project: ProjectArgument, name: PackageArgument, json: JsonOption = False) -> None:
    """Remove a package from a project. Its builds, and what they published, stay.

    \b
    Example:
      farm package remove mylib hello
    """
    with connected() as farm:
        gone = farm.remove_package(project, name)
    _say_done(gone, _add_command(gone), f"package {name} of project {project} is removed", is_json=json)


def _add_command(value: "ProjectPackage", *more: str) -> str:
    return shlex.join(["farm", "package", "add", value.project, value.name, *package_words(value), *more])


def _say_done(value: "ProjectPackage", undo: str, words: str, *, is_json: bool) -> None:
    from farm.service import documents

    answer({"package": documents.package(value)}, undo, words, is_json=is_json)
