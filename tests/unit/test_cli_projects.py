"""`farm project` and `farm package` as they are typed: each change prints a command that undoes it."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.driven_farm import driven_farm
from tests.typed import Typed

GIT = ("--git", "https://example.org/hello.git")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    with driven_farm(tmp_path_factory.mktemp("f"), with_redis=False) as driven:
        typed = Typed(driven)
        for name in ("base", "perl"):
            typed.ok("project", "new", name, "-t", "demo")
        yield typed


def state(typed: Typed, name: str = "perl") -> dict[str, Any]:
    """Without the times of packages, which a package that is added again has new."""
    found: dict[str, Any] = json.loads(typed.ok("project", "show", name, "--json"))
    for one in found["packages"]:
        del one["added_at"]
    return found


@pytest.mark.parametrize(
    "words",
    [
        "project set perl --title 'The Perl stack' --builds-on base --builds-on main --root-package gcc --private",
        "project set perl --builds-on base",
        "project grant perl ann maintainer",
        "project grant perl 'a b' packager",
        "project remove perl",
        "package add perl new --git https://example.org/new.git",
        "package add perl full --srpm https://example.org/a-1-1.src.rpm --replace",
        "package remove perl full",
    ],
)
def test_the_printed_command_undoes_the_change(typed: Typed, words: str) -> None:
    typed.ok(
        "package", "add", "perl", "full", *GIT, "--ref", "v1", "--subdir", "rpm dir", "--spec", "a.spec",
        "-a", "x86_64",
        "--with", "x", "--without", "tests", "--define", "dist .el9", "--timeout", "60", "--limit", "memory=8GiB",
        "--replace",
    )  # fmt: skip
    before = state(typed)
    document = json.loads(typed.ok(*shlex.split(words), "--json"))
    assert state(typed) != before
    farm, *undo = shlex.split(document["undo"])
    assert farm == "farm"
    done = json.loads(typed.ok(*undo, "--json"))
    assert state(typed) == before
    # The undo of the undo is the change itself.
    typed.ok(*shlex.split(done["undo"])[1:])
    assert state(typed) != before
    typed.ok(*undo)


def test_projects_are_listed_and_shown(typed: Typed) -> None:
    listed = typed.ok("project", "list").splitlines()
    assert [line.split()[0] for line in listed] == ["project", "base", "main", "perl"]
    typed.ok("project", "set", "base", "--private", "--title", "Base packages")
    shown = typed.ok("project", "show", "base")
    assert "only members and administrators" in shown
    assert "undo  farm project set base --private" in typed.ok("project", "set", "base", "--public")


def test_a_change_of_nothing_says_so(typed: Typed) -> None:
    document = json.loads(typed.ok("project", "set", "base", "--json"))
    assert document["undo"] == ""
    assert "was so before" in typed.ok("project", "set", "base")


def test_packages_are_listed_and_shown(typed: Typed) -> None:
    assert "has no packages" in typed.ok("package", "list", "base")
    made = typed.ok("package", "add", "base", "hello", *GIT, "--ref", "v1", "--limit", "memory=8GiB")
    assert made.splitlines() == [
        "package hello of project base: https://example.org/hello.git#v1",
        "  undo  farm package remove base hello",
    ]
    assert "https://example.org/hello.git#v1" in typed.ok("package", "list", "base")
    shown = typed.ok("package", "show", "base", "hello")
    assert "--git https://example.org/hello.git --ref v1 --limit memory=8GiB" in shown


def test_a_token_for_a_project_says_so(typed: Typed) -> None:
    made = typed("token", "new", "--role", "packager", "--actor", "ci", "--project", "perl")
    assert "of ci (packager in perl) is valid until" in made.stderr
    assert "packager in perl" in typed.ok("token", "list")
    assert json.loads(typed.ok("token", "list", "--json"))["tokens"][-1]["project"] == "perl"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("project show pearl", 23, "there is no project 'pearl'; did you mean perl? there are base, main, perl"),
        ("project new Perl -t demo", 20, "up to 64 of a-z, 0-9 and -"),
        ("project new perl -t demo", 24, "there is a project perl already"),
        ("project new x", 20, "needs a target; add --target"),
        ("project new x -t dmeo", 21, "did you mean demo"),
        ("project set perl --builds-on base --no-builds-on", 20, "--no-builds-on takes all away"),
        ("project set perl --builds-on nope", 23, "there is no project 'nope'"),
        ("project set main --title x", 20, "its settings are fixed"),
        ("project grant perl ann admin", 20, "cannot be admin; the roles are packager, maintainer"),
        ("project grant perl ann king", 2, "king"),
        ("project grant perl '' packager", 20, "owner ''"),
        ("project revoke perl nobody", 23, "nobody is no member of the project perl"),
        ("project restore perl", 24, "is not removed"),
        ("package add perl hello", 20, "either a git repository or a src.rpm"),
        ("package add perl 'a/b' --git https://example.org/a.git", 20, "is no package's name"),
        ("package add perl x --git https://u:p@example.org/a.git", 25, "has credentials"),
        ("package show perl nope", 23, "has no package 'nope'"),
        ("package remove perl nope", 23, "`farm package list perl`"),
        ("token new --role admin --project perl", 20, "leave --project out"),
        ("token new --role reader --project nope", 23, "there is no project 'nope'"),
    ],
)
def test_a_mistake_has_words_and_a_code(typed: Typed, words: str, code: int, says: str) -> None:
    result = typed(*shlex.split(words))
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
