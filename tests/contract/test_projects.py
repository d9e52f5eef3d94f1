"""Projects, their members and packages, through every implementation of `FarmApi`: rights, settings, and the undo of
each change. Redis and the databases are real."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from farm.client import FarmApi
from farm.errors import BadRequest, BadSource, FarmError, NotFound, NotPermitted, UnknownArch, UnknownTarget, WrongState
from farm.model.actor import Actor, Role
from farm.model.arch import Arch
from farm.model.outcome import Outcome, Status
from farm.model.project import Project, ProjectChange
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from farm.service.permissions import RULES, Place, Verb, check, may
from tests.contract.test_farm_api import IMPLEMENTATIONS
from tests.driven_farm import DrivenFarm, driven_farm
from tests.packages import make_srpm
from tests.rpms import make_rpm, sha256
from tests.served import served, token_for

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


def test_a_refusal_of_a_token_for_another_project_says_so() -> None:
    bot = Actor(name="bot", roles=frozenset({M}), project="perl")
    for verb, place in ((Verb.ENQUEUE, Place(project="other")), (Verb.ENQUEUE, Place()), (Verb.DRAIN, Place())):
        with pytest.raises(NotPermitted, match="the token is for the project perl alone; use another one"):
            check(bot, verb, place=place)


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


# --- builds -----------------------------------------------------------------------------------------------------


@pytest.fixture
def perl(site: Site) -> FarmApi:
    """An administrator, with a project that has a member, a package and a build."""
    farm = site.admin
    farm.new_project("perl", targets=["demo"], builds_on=["main"])
    farm.grant("perl", "ann", P)
    farm.grant("perl", "max", M)
    farm.add_package("perl", "hello", git=URL, ref="v1", arches=["x86_64"], with_=["x"], limits={"memory_bytes": 2**30})
    return farm


def test_a_package_is_built_with_its_options_or_those_that_are_given(site: Site, perl: FarmApi) -> None:
    ann = site.named("ann", R)
    usual = ann.enqueue(project="perl", package="hello").last
    assert (usual.project, usual.package, usual.target, usual.arches) == ("perl", "hello", "demo", (Arch.X86_64,))
    assert (usual.source.ref, usual.options.with_, usual.options.limits.given) == (
        "v1",
        ("x",),
        {"memory_bytes": 2**30},
    )
    assert usual.owner == "ann"
    other = ann.enqueue(
        project="perl", package="hello", ref="v2", arches=["aarch64"], with_=["y"], limits={"memory_bytes": 2**31}
    ).last
    assert (other.source.url, other.source.ref, other.arches) == (URL, "v2", (Arch.AARCH64,))
    assert (other.options.with_, other.options.limits.given) == (("y",), {"memory_bytes": 2**31})
    plain = ann.enqueue(project="perl", git=URL, arches=["x86_64"]).last
    assert (plain.project, plain.source.ref) == ("perl", None)
    many = ann.enqueue_many([ann.request(project="perl", package="hello"), ann.request(project="perl", git=URL)])
    assert [build.project for build in (one.refresh() for one in many.builds)] == ["perl", "perl"]
    perl.add_package("main", "hello", git=URL)
    assert perl.enqueue(target="demo", package="hello").last.project == "main"


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"project": "pearl", "git": URL}, NotFound, "there is no project 'pearl'; did you mean perl"),
        ({"project": "perl", "package": "helo"}, NotFound, "the project perl has no package 'helo'"),
        ({"project": "perl", "package": "hello", "git": URL}, BadRequest, "leave --git and --srpm out"),
        ({"project": "perl"}, BadRequest, "either a git repository or a src.rpm"),
        (
            {"project": "perl", "git": URL, "target": "almalinux-9"},
            BadRequest,
            "does not build for 'almalinux-9', but for demo",
        ),
        ({"project": "wide", "git": URL}, BadRequest, "builds for almalinux-9, demo; choose one with --target"),
        ({"project": "main", "git": URL}, BadRequest, "a build needs a target: --target T"),
        ({"project": "gone", "git": URL}, WrongState, "the project gone was removed"),
        ({"project": "../x", "git": URL}, NotFound, "there is no project"),
        ({"project": "a\0", "git": URL}, NotFound, "there is no project"),
    ],
)
def test_a_build_that_a_project_cannot_have_is_refused(
    site: Site, perl: FarmApi, asked: dict[str, object], error: type, says: str
) -> None:
    perl.new_project("wide", targets=["almalinux-9", "demo"])
    perl.new_project("gone", targets=["demo"])
    perl.remove_project("gone")
    with pytest.raises(FarmError, match=says) as raised:
        perl.enqueue(**asked)  # type: ignore[arg-type]
    assert isinstance(raised.value, error)
    assert perl.builds() == ()


def test_builds_of_a_project_take_a_role_there(site: Site, perl: FarmApi) -> None:
    ann, max_, bob = site.named("ann", R), site.named("max", R), site.named("bob", P, M, OP)
    bot, stray = site.named("bot", P, project="perl"), site.named("bot", P, project="main")
    mine = ann.enqueue(project="perl", package="hello").id
    bot.enqueue(project="perl", package="hello")
    with pytest.raises(NotPermitted, match="bob may not enqueue builds in the project perl"):
        bob.enqueue(project="perl", package="hello")
    for farm in (ann, bot):
        with pytest.raises(NotPermitted, match="may not enqueue builds"):
            farm.enqueue(target="demo", git=URL)
    assert stray.enqueue(target="demo", git=URL).last.project == "main"
    request = perl.request(project="perl", package="hello")
    with pytest.raises(NotPermitted, match="in the project perl"):
        bob.enqueue_many([request])
    for farm in (ann, max_, bot):
        with pytest.raises(NotPermitted, match=r"go before those of others \(a priority above 0\)"):
            farm.enqueue(project="perl", package="hello", priority=1)
    for call in (lambda farm: farm.cancel(mine), lambda farm: farm.retry(mine)):
        for farm in (bob, bot):
            with pytest.raises(NotPermitted, match="of owner ann in the project perl"):
                call(farm)
    max_.cancel(mine)
    ann.retry(mine)
    perl.revoke("perl", "ann")
    with pytest.raises(NotPermitted):
        ann.cancel(mine)
    for call in (lambda farm: farm.rollback("demo", to=0, arch="x86_64", project="perl"),):
        for farm in (bob, bot):
            with pytest.raises(NotPermitted, match="may not roll back repositories in the project perl"):
                call(farm)
        with pytest.raises(NotPermitted):
            max_.rollback("demo", to=0, arch="x86_64")
        call(max_)


def test_builds_of_a_private_project_exist_for_its_members_alone(site: Site, perl: FarmApi) -> None:
    perl.set_project("perl", is_private=True)
    perl.grant("perl", "bot", P)
    ann, bob, bot = site.named("ann", R), site.named("bob", R, P, M, OP), site.named("bot", P, project="main")
    hidden = ann.enqueue_many([ann.request(project="perl", package="hello")])
    number, batch = hidden.builds[0].id, hidden.id
    open_ = perl.enqueue(target="demo", git=URL, arches=["x86_64"]).id
    assert [one.id for one in ann.builds()] == [open_, number]
    assert [one.id for one in ann.builds(limit=1)] == [open_]
    assert ann.build(number).project == ann.batch(batch).builds[0].project == "perl"
    assert ann.repository("demo", "x86_64", project="perl").project == "perl"
    for farm in (bob, bot):
        assert [one.id for one in farm.builds()] == [open_]
        assert farm.builds(status=None, before=open_) == ()
        for call, says in (
            (lambda farm: farm.build(number), f"there is no build {number};"),
            (lambda farm: farm.batch(batch), f"there is no batch {batch};"),
            (lambda farm: list(farm.log(number, "fetch")), f"there is no build {number};"),
            (lambda farm: next(farm.watch(number)), f"there is no build {number};"),
            (lambda farm: farm.cancel(number), f"there is no build {number};"),
            (lambda farm: farm.retry(number), f"there is no build {number};"),
            (lambda farm: farm.builds(project="perl"), "there is no project 'perl'"),
            (lambda farm: farm.repository("demo", project="perl"), "there is no project 'perl'"),
            (lambda farm: farm.repository_name("demo", project="perl"), "there is no project 'perl'"),
            (lambda farm: farm.repository_versions("demo", project="perl"), "there is no project 'perl'"),
            (lambda farm: farm.enqueue(project="perl", package="hello"), "there is no project 'perl'"),
        ):
            with pytest.raises(NotFound, match=says):
                call(farm)
    perl.cancel(number)


def test_a_list_is_of_one_project_or_package(site: Site, perl: FarmApi) -> None:
    ours = [perl.enqueue(project="perl", package="hello").id for _ in range(2)]
    theirs = perl.enqueue(target="demo", git="https://example.org/other.git", arches=["x86_64"]).id
    perl.cancel(ours[0])
    assert [one.id for one in perl.builds(project="perl")] == ours[::-1]
    assert [one.id for one in perl.builds(project="main")] == [theirs]
    assert [one.id for one in perl.builds(package="hello")] == ours[::-1]
    assert [one.id for one in perl.builds(package="other", project="perl")] == []
    assert [one.id for one in perl.builds(project="perl", status=Status.READY)] == ours[1:]
    assert [one.id for one in perl.builds(package="hello", outcome=Outcome.CANCELLED, target="demo")] == ours[:1]
    assert [one.id for one in perl.builds(project="perl", before=ours[1])] == ours[:1]
    with pytest.raises(NotFound, match="did you mean perl"):
        perl.builds(project="pearl")


def test_an_upload_may_change_the_repositories_of_its_own_project_alone(site: Site, perl: FarmApi) -> None:
    """The fake workers' upload names the default project's."""
    driven = site.driven
    number = perl.enqueue(project="perl", package="hello").id
    driven.to_build(number)
    driven.succeed(f"{number}.build.x86_64.1")
    driven.succeed(f"{number}.upload.x86_64.1")
    upload = perl.build(number).steps[-1]
    assert upload.outcome is None
    assert "to which this upload does not publish" in (upload.attempts[-1].reason or "")


def test_repository_files_of_a_private_project_are_served_to_its_members_alone(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven, served(driven.settings) as address:
        farm = driven.farm
        farm.new_project("hidden", targets=["demo"], is_private=True)
        farm.grant("hidden", "ann", P)
        name = RepositoryName(project="hidden", target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
        path = make_rpm(tmp_path, "one")
        given = RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)
        open_repositories(driven.settings).add(name, [given])
        url = f"{address}/repos/{name.path}/current/repodata/repomd.xml"

        def asked(actor: str) -> int:
            token = token_for(driven.store, Actor(name=actor, roles=frozenset({R, P, M, OP})))
            return httpx.get(url, headers={"authorization": f"Bearer {token}"}).status_code

        assert (asked("eve"), asked("ann")) == (404, 200)
        farm.set_project("hidden", is_private=False)
        assert asked("eve") == 200


def test_members_upload_source_packages_for_their_project(site: Site, perl: FarmApi, tmp_path: Path) -> None:
    """They have no role on the farm that lets them build."""
    path = make_srpm("hello-noarch", tmp_path)
    ann = site.as_(Actor(name="ann", roles=frozenset({R}), uid=0))
    assert ann.enqueue(project="perl", srpm=path, arches=["x86_64"]).last.project == "perl"
    with pytest.raises(BadRequest, match="leave --git and --srpm out"):
        ann.enqueue(project="perl", package="hello", srpm=path)
    with pytest.raises(NotPermitted):
        site.as_(Actor(name="eve", roles=frozenset({R}), uid=0)).enqueue(target="demo", srpm=path)


@pytest.mark.parametrize("chosen", [{"project": "main"}, {"project": "main", "status": "finished"}, {"package": "a"}])
def test_a_list_of_one_project_or_package_seeks(tmp_path: Path, database_url: str, chosen: dict[str, str]) -> None:
    """No scan of all builds, and no sort: the databases say how they answer."""
    if not database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL scans a small table whatever its indexes")
    with driven_farm(tmp_path, with_redis=False, database_url=database_url) as driven:
        where = " AND ".join(f"{name} = '{value}'" for name, value in chosen.items())
        question = f"EXPLAIN QUERY PLAN SELECT * FROM build WHERE {where} ORDER BY id DESC LIMIT 50"
        with driven.store.reading() as connection:
            said = [row.detail for row in connection.execute(sa.text(question))]
        assert len(said) == 1, said
        assert "USING INDEX" in said[0]
