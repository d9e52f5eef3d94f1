"""Projects, their members and packages, through every implementation of `FarmApi`: rights, settings, and the undo of
each change. Redis and the databases are real."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from farm.client import FarmApi
from farm.errors import BadRequest, BadSource, FarmError, NotFound, NotPermitted, UnknownArch, UnknownTarget, WrongState
from farm.model.actor import Actor, Role
from farm.model.arch import Arch
from farm.model.project import Project
from farm.service.permissions import RULES, Place, Verb, check, may
from tests.contract.test_farm_api import IMPLEMENTATIONS
from tests.driven_farm import DrivenFarm, driven_farm

R, P, M, OP, A = Role
URL = "https://example.org/hello.git"
ADMIN = Actor(name="root", roles=frozenset({A}))


class Site:
    def __init__(self, driven: DrivenFarm, connect: Callable[..., FarmApi], stack: ExitStack) -> None:
        self.driven, self._connect, self._stack = driven, connect, stack
        self.admin = self.as_(ADMIN)

    def as_(self, actor: Actor) -> FarmApi:
        return self._stack.enter_context(self._connect(self.driven.settings, actor))

    def named(self, name: str, *roles: Role, project: str | None = None) -> FarmApi:
        return self.as_(Actor(name=name, roles=frozenset(roles), project=project))


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def site(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[Site]:
    if request.param == "remote" and not database_url.startswith("sqlite"):
        pytest.skip("the server asks the same service, which the local client tests on both databases")
    with driven_farm(tmp_path, database_url=database_url) as driven, ExitStack() as stack:
        yield Site(driven, IMPLEMENTATIONS[request.param], stack)


# --- rights: the whole table ------------------------------------------------------------------------------------

#: For each verb that hangs on a project, the roles there that may use it on one's own builds and on those of others.
IN_PROJECT: dict[Verb, tuple[set[Role], set[Role]]] = {
    Verb.SEE: ({R, P, M, A}, {R, P, M, A}),
    Verb.ENQUEUE: ({P, M, A}, {A}),
    Verb.CANCEL: ({P, M, A}, {M, A}),
    Verb.RETRY: ({P, M, A}, {M, A}),
    Verb.ROLL_BACK: ({M, A}, {M, A}),
    Verb.SET_PROJECT: ({M, A}, {M, A}),
    Verb.GRANT: ({M, A}, {M, A}),
    Verb.CHANGE_PACKAGES: ({M, A}, {M, A}),
}


def test_every_verb_hangs_on_the_farm_or_on_a_project() -> None:
    assert {verb for verb in Verb if not RULES[verb].is_on_farm} == set(IN_PROJECT)


@pytest.mark.parametrize("verb", IN_PROJECT)
def test_rights_in_a_project_are_those_of_its_members_and_of_the_farm_s_administrators(verb: Verb) -> None:
    for role, member, is_private, owner in product((None, *Role), (None, P, M), (False, True), ("bob", "ann")):
        actor = Actor(name="bob", roles=frozenset({role} if role else ()))
        place = Place(project="perl", member=member, is_private=is_private)
        here = {member, A if role is A else None, R if role and not is_private else None}
        allowed = IN_PROJECT[verb][owner != "bob"]
        assert may(actor, verb, owner=owner, place=place) is bool(here & allowed), (role, member, is_private, owner)


@pytest.mark.parametrize("verb", Verb)
def test_a_token_for_a_project_has_its_roles_there_alone(verb: Verb) -> None:
    for role, member, place_name, is_private in product((R, P, M), (None, M), ("perl", "other", "main"), (False, True)):
        actor = Actor(name="bob", roles=frozenset({role}), project="perl")
        place = Place(project=place_name, member=member, is_private=is_private and place_name != "main")
        if verb not in IN_PROJECT:
            expected = verb is Verb.READ
        elif place_name == "perl":
            expected = role in IN_PROJECT[verb][0]
        else:
            expected = verb is Verb.SEE and not place.is_private
        assert may(actor, verb, owner="bob", place=place) is expected, (role, member, place)


def test_the_farm_s_roles_are_those_in_the_default_project() -> None:
    for verb, role in product(IN_PROJECT, Role):
        actor = Actor(name="bob", roles=frozenset({role}))
        expected = role in IN_PROJECT[verb][0] or (verb is Verb.SEE and role is OP)
        assert may(actor, verb, owner="bob") is expected, (verb, role)


def test_a_refusal_names_project_role_and_the_command_that_helps() -> None:
    with pytest.raises(NotPermitted) as raised:
        check(Actor(name="bob", roles=frozenset({M})), Verb.ENQUEUE, place=Place(project="perl"))
    assert str(raised.value) == (
        "bob may not enqueue builds in the project perl: the role packager is missing (roles of bob there: reader); "
        "ask a maintainer of the project for `farm project grant perl bob packager`"
    )


# --- members ----------------------------------------------------------------------------------------------------


def test_a_member_has_rights_in_that_project_alone_until_they_are_taken_away(site: Site) -> None:
    for name in ("perl", "other"):
        site.admin.new_project(name, targets=["demo"])
    bob = site.named("bob", R)
    with pytest.raises(NotPermitted, match="farm project grant perl bob maintainer"):
        bob.grant("perl", "cid", P)
    edit = site.admin.grant("perl", "bob", M)
    assert (edit.before.members, [(one.actor, one.role) for one in edit.after.members]) == ((), [("bob", M)])
    assert [(one.actor, one.role) for one in bob.grant("perl", "cid", P).after.members] == [("bob", M), ("cid", P)]
    bob.set_project("perl", title="Perl")
    bob.add_package("perl", "hello", git=URL)
    for call in (
        lambda: bob.set_project("other", title="mine"),
        lambda: bob.add_package("main", "hello", git=URL),
        lambda: bob.new_project("mine", targets=["demo"]),
        lambda: bob.remove_project("perl"),
    ):
        with pytest.raises(NotPermitted):
            call()
    edit = site.admin.revoke("perl", "bob")
    assert [(one.actor, one.role) for one in edit.before.members] == [("bob", M), ("cid", P)]
    with pytest.raises(NotPermitted):
        bob.set_project("perl", title="x")
    assert site.admin.project("perl").title == "Perl"


def test_a_token_for_one_project_is_made_used_and_shown(site: Site) -> None:
    site.admin.new_project("perl", targets=["demo"])
    made = site.admin.new_token(name="ci", roles=[M], bearer="bot", project="perl")
    assert (made.token.project, site.admin.tokens()[-1].project) == ("perl", "perl")
    bot = site.named("bot", M, project="perl")
    assert bot.whoami().project == "perl"
    bot.add_package("perl", "hello", git=URL)
    assert [one.name for one in bot.projects()] == ["main", "perl"]
    with pytest.raises(NotPermitted):
        bot.enqueue(git=URL, target="demo")
    for roles in ([A], [OP], [P, A]):
        with pytest.raises(BadRequest, match="one of the whole farm"):
            site.admin.new_token(name="x", roles=roles, project="perl")
    with pytest.raises(NotFound, match="there is no project 'pearl'; did you mean perl"):
        site.admin.new_token(name="x", roles=[P], project="pearl")


def test_a_private_project_exists_for_its_members_alone(site: Site) -> None:
    site.admin.new_project("hidden", targets=["demo"], is_private=True)
    site.admin.new_project("open", targets=["demo"])
    site.admin.grant("hidden", "ann", P)
    ann, bob, bot = site.named("ann", R), site.named("bob", R, P, M, OP), site.named("ann", P, project="open")
    assert [one.name for one in ann.projects()] == ["hidden", "main", "open"]
    assert ann.project("hidden").is_private
    for other in (bob, bot):
        assert [one.name for one in other.projects()] == ["main", "open"]
        for call in (
            lambda farm: farm.project("hidden"),
            lambda farm: farm.packages("hidden"),
            lambda farm: farm.grant("hidden", "bob", M),
            lambda farm: farm.add_package("hidden", "hello", git=URL),
        ):
            with pytest.raises(NotFound, match="there is no project 'hidden'; there are main, open"):
                call(other)
    site.admin.grant("open", "bob", M)
    with pytest.raises(NotFound, match="there is no project 'hidden'"):
        bob.set_project("open", builds_on=["hidden"])
    site.admin.set_project("open", builds_on=["hidden"])
    assert bob.set_project("open", title="still").after.builds_on == ("hidden",)
    site.admin.set_project("hidden", is_private=False)
    assert bob.project("hidden").name == "hidden"


# --- settings ---------------------------------------------------------------------------------------------------


def test_each_change_can_be_undone_with_the_project_as_it_was(site: Site) -> None:
    farm = site.admin
    base = farm.new_project("base", targets=["demo"])
    assert base == farm.project("base")
    made = farm.new_project("perl", targets=["demo"], title="Perl", builds_on=["base", "main"], root_packages=["gcc"])
    edit = farm.set_project("perl", title="New", builds_on=[], root_packages=["a", "b"], is_private=True)
    assert edit.before == made
    assert edit.after == replace(made, title="New", builds_on=(), root_packages=("a", "b"), is_private=True)
    was = edit.before
    back = farm.set_project(
        "perl",
        title=was.title,
        targets=was.targets,
        builds_on=was.builds_on,
        root_packages=was.root_packages,
        is_private=was.is_private,
    )
    assert back.after == farm.project("perl") == made
    with pytest.raises(WrongState, match="perl builds on the project base; take it off there first"):
        farm.remove_project("base")
    farm.grant("perl", "ann", P)
    package = farm.add_package("perl", "hello", git=URL)
    assert farm.remove_project("perl").after.removed_by == "root"
    farm.remove_project("base")
    assert [one.name for one in farm.projects()] == ["main"]
    for call in (
        lambda: farm.grant("perl", "bob", P),
        lambda: farm.set_project("perl", title="x"),
        lambda: farm.remove_project("perl"),
    ):
        with pytest.raises(WrongState, match="the project perl was removed; `farm project restore perl`"):
            call()
    with pytest.raises(WrongState, match="has builds and repositories of that name"):
        farm.new_project("perl", targets=["demo"])
    with pytest.raises(WrongState, match="farm project restore base"):
        farm.restore_project("perl")
    farm.restore_project("base")
    restored = farm.restore_project("perl").after
    assert (restored.builds_on, [one.actor for one in restored.members]) == (("base", "main"), ["ann"])
    assert farm.packages("perl") == (package,)
    with pytest.raises(WrongState, match="is not removed"):
        farm.restore_project("perl")


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"name": "Perl"}, BadRequest, "'Perl' is no project's name, which has up to 64 of a-z, 0-9 and -"),
        ({"name": "../x"}, BadRequest, "is no project's name"),
        ({"name": ""}, BadRequest, "is no project's name"),
        ({"name": "a" * 65}, BadRequest, "is no project's name"),
        ({"name": "a\n"}, BadRequest, "is no project's name"),
        ({"name": "main"}, WrongState, "there is a project main already"),
        ({"targets": []}, BadRequest, "needs a target"),
        ({"targets": ["dmeo"]}, UnknownTarget, "did you mean demo"),
        ({"targets": ["demo", "demo"]}, BadRequest, "--target names 'demo' twice"),
        ({"builds_on": ["nope"]}, NotFound, "there is no project 'nope'; there are base, main"),
        ({"builds_on": ["new"]}, BadRequest, "sees its own|see its own"),
        ({"builds_on": ["base"] * 2}, BadRequest, "--builds-on names 'base' twice"),
        ({"builds_on": [f"p{n}" for n in range(21)]}, BadRequest, "at most 20"),
        ({"root_packages": ["a,b"]}, BadRequest, "--root-package 'a,b'"),
        ({"title": "a\0"}, BadRequest, "--title has at most 200 printable characters"),
        ({"title": "a" * 201}, BadRequest, "--title has at most 200"),
    ],
)
def test_a_project_that_cannot_be_is_refused(site: Site, wrong: dict[str, object], error: type, says: str) -> None:
    site.admin.new_project("base", targets=["demo"])
    asked = {"name": "new", "targets": ["demo"], **wrong}
    with pytest.raises(FarmError, match=says) as raised:
        site.admin.new_project(asked.pop("name"), **asked)  # type: ignore[arg-type]
    assert isinstance(raised.value, error)
    assert [one.name for one in site.admin.projects()] == ["base", "main"]


def test_a_circle_is_refused_and_named(site: Site) -> None:
    farm = site.admin
    farm.new_project("a", targets=["demo"], builds_on=["main"])
    farm.new_project("b", targets=["demo"], builds_on=["a"])
    farm.new_project("c", targets=["demo"], builds_on=["a", "b"])
    with pytest.raises(BadRequest, match="makes a circle: a builds on c builds on b builds on a; take a off the list"):
        farm.set_project("a", builds_on=["main", "c"])
    assert farm.project("a").builds_on == ("main",)


def test_the_default_project_is_as_it_always_was(site: Site) -> None:
    main = site.admin.project("main")
    assert (main.targets, main.builds_on, main.members, main.is_private) == ((), (), (), False)
    for call in (
        lambda: site.admin.set_project("main", builds_on=[]),
        lambda: site.admin.grant("main", "ann", P),
        lambda: site.admin.remove_project("main"),
    ):
        with pytest.raises(BadRequest, match="main is the default project"):
            call()


# --- packages ---------------------------------------------------------------------------------------------------


def test_a_package_keeps_its_source_and_its_options(site: Site) -> None:
    site.admin.new_project("perl", targets=["demo"])
    added = site.admin.add_package(
        "perl", "hello", git=URL, ref="main", subdir="rpm", spec="hello.spec", arches=["aarch64", "x86_64"],
        with_=["x"], without=["tests"], defines={"dist": ".el9"}, timeout_s=60, limits={"memory_bytes": 2**30},
    )  # fmt: skip
    assert site.admin.package("perl", "hello") == added
    assert site.admin.packages("perl") == (added,)
    assert (added.source.url, added.source.ref, added.source.subdir, added.source.spec) == (
        URL,
        "main",
        "rpm",
        "hello.spec",
    )
    assert (added.arches, added.added_by) == ((Arch.AARCH64, Arch.X86_64), "root")
    options = added.options
    assert (options.with_, options.without, options.defines) == (("x",), ("tests",), (("dist", ".el9"),))
    assert (options.timeout_s, options.limits.given) == (60, {"memory_bytes": 2**30})
    with pytest.raises(WrongState, match="has a package hello already; add --replace"):
        site.admin.add_package("perl", "hello", git=URL)
    site.admin.add_package("perl", "hello", git=URL, replaces=True)
    assert site.admin.package("perl", "hello").source.ref is None
    assert site.admin.remove_package("perl", "hello").name == "hello"
    with pytest.raises(NotFound, match="has no package 'hello'"):
        site.admin.remove_package("perl", "hello")
    site.admin.add_package("main", "hello", srpm="https://example.org/hello-1-1.src.rpm")
    assert [one.name for one in site.admin.packages("main")] == ["hello"]


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"git": None}, BadRequest, "either a git repository or a src.rpm"),
        ({"git": "https://me:secret@example.org/a.git"}, BadSource, "has credentials, which a package does not keep"),
        ({"git": "ext::sh"}, BadSource, "for its users alone"),
        ({"ref": "-x"}, BadSource, "ref"),
        ({"subdir": "../x"}, BadSource, "--subdir"),
        ({"arches": ["s390x"]}, UnknownArch, "s390x"),
        ({"limits": {"memory_bytes": 1}}, BadRequest, "out of range"),
        ({"name": "a/b"}, BadRequest, "is no package's name"),
        ({"name": ""}, BadRequest, "is no package's name"),
    ],
)
def test_a_package_that_cannot_be_is_refused(site: Site, wrong: dict[str, object], error: type, says: str) -> None:
    site.admin.new_project("perl", targets=["demo"])
    asked = {"name": "hello", "git": URL, **wrong}
    with pytest.raises(FarmError, match=says) as raised:
        site.admin.add_package("perl", asked.pop("name"), **asked)  # type: ignore[arg-type]
    assert isinstance(raised.value, error)
    assert "secret" not in str(raised.value)
    assert site.admin.packages("perl") == ()


def test_changes_at_once_make_no_circle(tmp_path: Path, database_url: str) -> None:
    """The check and the write are one transaction: of two changes that make a circle together one is refused."""
    from threading import Barrier, Thread

    with driven_farm(tmp_path, with_redis=False, database_url=database_url) as driven:
        store, now = driven.store, datetime.now(UTC)
        for name in ("a", "b"):
            store.add_project(Project(name=name, targets=("demo",), created_at=now, created_by="x"))
        projects, refused, both = driven.farm._service.projects, [], Barrier(2)

        def change(name: str, other: str) -> None:
            from farm.service.projects import ProjectChange

            both.wait(10)
            try:
                projects.set(ADMIN, name, ProjectChange(builds_on=(other,)))
            except BadRequest as error:
                refused.append(error)

        threads = [Thread(target=change, args=pair) for pair in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(refused) == 1
