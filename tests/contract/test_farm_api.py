"""One suite for every implementation of `FarmApi`, on a real Redis and on both databases.

Each implementation is one line in IMPLEMENTATIONS. A test plays the scheduler and the workers of the farm.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farm.broker.leases import Leases
from farm.client import Event, Farm, FarmApi
from farm.config import Settings
from farm.errors import (
    BadRequest,
    BadSource,
    FarmNotRunning,
    NotFound,
    NotLoggedIn,
    NotPermitted,
    UnknownArch,
    UnknownTarget,
    WaitTimedOut,
    WrongState,
)
from farm.model.actor import Actor, Role
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.audit import DONE
from farm.model.build import BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.worker import HoldKind
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from farm.service.connections import Connections
from farm.service.permissions import Place, Verb, check
from farm.service.service import FarmService
from farm.store.heads import Head
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.rpms import make_rpm, sha256
from tests.served import connect_served

#: How an actor is connected to the farm of these settings.
IMPLEMENTATIONS: dict[str, Callable[[Settings, Actor], FarmApi]] = {
    "local": lambda settings, actor: Farm.connect(settings, actor=actor),
    "remote": connect_served,
}
URL = "https://example.org/hello.git"
SOURCE = Source(kind=SourceKind.GIT, url=URL)
REQUEST = BuildRequest(source=SOURCE, target="demo", arches=(Arch.X86_64,))
ADMIN = Actor(name="root", roles=frozenset({Role.ADMIN}))
ANN = Actor(name="ann", roles=frozenset({Role.PACKAGER}))
BOB = Actor(name="bob", roles=frozenset({Role.PACKAGER}))
VISITOR = Actor(name="eve", roles=frozenset({Role.READER}))
FIRST_TOKEN = 1
OS = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)


class Site:
    """A farm, and the connections of its actors by one implementation."""

    def __init__(self, driven: DrivenFarm, connect: Callable[[Settings, Actor], FarmApi], stack: ExitStack) -> None:
        self.driven = driven
        self._connect = connect
        self._stack = stack
        self.leases = Leases(driven.settings)

    def as_(self, actor: Actor) -> FarmApi:
        return self._stack.enter_context(self._connect(self.driven.settings, actor))

    def publish(self, folder: Path, *packages: str) -> None:
        """Each package is a new version of a repository of the target `demo`."""
        for package in packages:
            path = make_rpm(folder, package)
            given = RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)
            open_repositories(self.driven.settings).add(OS, [given])


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def site(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[Site]:
    if request.param == "remote" and not database_url.startswith("sqlite"):
        pytest.skip("the server asks the same service, which the local client tests on both databases")
    with driven_farm(tmp_path, database_url=database_url) as driven, ExitStack() as stack:
        assert driven.farm.new_token(name="first", roles=[Role.READER]).token.id == FIRST_TOKEN
        made = Site(driven, IMPLEMENTATIONS[request.param], stack)
        stack.callback(made.leases.close)
        yield made


@pytest.fixture
def admin(site: Site) -> FarmApi:
    return site.as_(ADMIN)


def one_build(farm: FarmApi, **more: object) -> int:
    return farm.enqueue(**{"git": URL, "target": "demo", "arches": ["x86_64"], **more}).id  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS))
def test_an_implementation_has_the_parameters_of_the_protocol(name: str, tmp_path: Path) -> None:
    with driven_farm(tmp_path, with_redis=False) as driven:
        farm = IMPLEMENTATIONS[name](driven.settings, ADMIN)
        farm.close()
    for method, declared in inspect.getmembers(FarmApi, inspect.isfunction):
        if not method.startswith("_"):
            assert _parameters(getattr(type(farm), method)) == _parameters(declared), method


def _parameters(function: Callable[..., object]) -> list[tuple[str, object, bool]]:
    """The name and kind of each parameter, and whether it may be left out."""
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default is inspect.Parameter.empty) for one in found]


# --- permissions ------------------------------------------------------------------------------------------------

P, M, OP, A = Role.PACKAGER, Role.MAINTAINER, Role.OPERATOR, Role.ADMIN
#: A call of each verb on another actor's build, host or repository, and the roles that may make it.
CALLS: dict[Verb, tuple[Callable[[FarmApi], object], set[Role]]] = {
    Verb.READ: (lambda farm: farm.builds(), set(Role)),
    Verb.ENQUEUE: (lambda farm: farm.enqueue_many([REQUEST], owner="ann"), {A}),
    Verb.HURRY: (lambda farm: farm.enqueue_many([replace(REQUEST, priority=1)]), {M, A}),
    Verb.CANCEL: (lambda farm: farm.cancel(1), {M, A}),
    Verb.RETRY: (lambda farm: farm.retry(2, "fetch"), {M, A}),
    Verb.DRAIN: (lambda farm: farm.drain_host("one"), {OP, A}),
    Verb.UNDRAIN: (lambda farm: farm.undrain_host("two"), {OP, A}),
    Verb.ROLL_BACK: (lambda farm: farm.rollback("demo", to=0, arch="x86_64"), {M, A}),
    Verb.COLLECT: (lambda farm: farm.collect_artifacts(since=datetime.now(UTC)), {OP, A}),
    Verb.MAKE_TOKENS: (lambda farm: farm.new_token(name="mine", roles=[Role.ADMIN]), {A}),
    Verb.LIST_TOKENS: (lambda farm: farm.tokens(), {A}),
    Verb.REVOKE_TOKENS: (lambda farm: farm.revoke_token(FIRST_TOKEN), {A}),
    Verb.READ_AUDIT: (lambda farm: farm.audit(), {OP, A}),
    Verb.MAKE_PROJECTS: (lambda farm: farm.new_project("new", targets=["demo"]), {A}),
    # On a project of which the actor is no member; test_projects.py has the rights of members.
    Verb.SEE: (lambda farm: farm.project("hidden"), {A}),
    Verb.REMOVE_PROJECTS: (lambda farm: farm.remove_project("open"), {A}),
    Verb.SET_PROJECT: (lambda farm: farm.set_project("open", title="taken"), {A}),
    Verb.GRANT: (lambda farm: farm.grant("open", "bob", Role.MAINTAINER), {A}),
    Verb.CHANGE_PACKAGES: (lambda farm: farm.add_package("open", "hello", git=URL), {A}),
}
#: The project of each verb whose call is about one.
IN_PROJECT = {
    Verb.SEE: Place(project="hidden", is_private=True),
    **dict.fromkeys((Verb.SET_PROJECT, Verb.GRANT, Verb.CHANGE_PACKAGES), Place(project="open")),
}
#: The verbs on the actor's own builds, for which it needs less.
OWN_CALLS: dict[Verb, tuple[Callable[[FarmApi], object], set[Role]]] = {
    Verb.ENQUEUE: (one_build, {P, M, A}),
    Verb.CANCEL: (lambda farm: farm.cancel(1), {P, M, A}),
    Verb.RETRY: (lambda farm: farm.retry(2, "fetch"), {P, M, A}),
}


def test_every_verb_is_tried() -> None:
    assert set(CALLS) == set(Verb)


@pytest.mark.parametrize("verb", Verb)
def test_a_verb_takes_exactly_its_roles_and_a_refusal_changes_nothing(
    site: Site, admin: FarmApi, verb: Verb, tmp_path: Path
) -> None:
    one_build(admin, owner="ann")
    admin.cancel(one_build(admin, owner="ann"))
    site.leases.announce(worker_facts("build@one"))
    admin.drain_host("two", force=True)
    site.publish(tmp_path, "one")
    for name, is_private in (("open", False), ("hidden", True)):
        admin.new_project(name, targets=["demo"], is_private=is_private)

    def state() -> object:
        versions = admin.repository_versions("demo", "x86_64")
        projects = admin.projects(), admin.packages("open")
        return admin.builds(), admin.host_holds(), versions, projects, [one.revoked_at for one in admin.tokens()][:1]

    def records() -> list[tuple[str, str]]:
        """The acts of bob, newest first: each call that changes something, and none other, has exactly one record."""
        return [(one.verb, one.outcome) for one in admin.audit(actor="bob")]

    before, (call, roles) = state(), CALLS[verb]
    named = Verb.ENQUEUE.word if verb is Verb.HURRY else verb.word  # a part of the same act
    expected: list[tuple[str, str]] = []
    for role in sorted({None, *Role} - roles, key=str):
        bob = Actor(name="bob", roles=frozenset({role} if role else ()))
        hides = verb is Verb.SEE and role is not None
        with pytest.raises(NotFound if hides else NotPermitted) as raised:
            call(site.as_(bob))
        for word in ("there is no project 'hidden'",) if hides else ("bob may not", "is missing", "ask a"):
            assert word in str(raised.value)
        assert before == state(), role
        # A server does not let in an actor without any role, so it does not come to the verb.
        is_let_in = role is not None or isinstance(admin, Farm)
        expected += [(named, NotPermitted.code)] if verb.changes and is_let_in else []
        assert records() == expected
    for role in sorted(roles, key=list(Role).index)[:1]:  # the others include it, and a call cannot be made twice
        call(site.as_(Actor(name="bob", roles=frozenset({role}))))
        assert records() == ([(named, DONE)] if verb.changes else []) + expected


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", Verb)
def test_the_table_of_rights_is_the_one_that_the_calls_show(verb: Verb, role: Role) -> None:
    actor = Actor(name="bob", roles=frozenset({role}))
    for calls, owner in ((CALLS, "ann"), (OWN_CALLS, "bob")):
        if verb in calls:
            with nullcontext() if role in calls[verb][1] else pytest.raises(NotPermitted):
                check(actor, verb, owner=owner, place=IN_PROJECT.get(verb, Place()))


@pytest.mark.parametrize("role", Role)
def test_own_builds_are_a_packagers(site: Site, admin: FarmApi, role: Role) -> None:
    bob = site.as_(Actor(name="bob", roles=frozenset({role})))
    one_build(admin, owner="bob")
    admin.cancel(one_build(admin, owner="bob"))
    for call, roles in OWN_CALLS.values():
        with nullcontext() if role in roles else pytest.raises(NotPermitted, match="the role packager is missing"):
            call(bob)


def test_a_reader_may_not_enqueue_but_may_look(site: Site) -> None:
    build_id = one_build(site.as_(ANN))
    eve = site.as_(VISITOR)
    calls: tuple[Callable[[], object], ...] = (
        lambda: one_build(eve),
        lambda: eve.enqueue_many([REQUEST]),
        lambda: eve.request(git=URL, target="demo"),
    )
    for call in calls:
        with pytest.raises(NotPermitted, match=r"eve may not enqueue builds: the role packager is missing .*: reader"):
            call()
    assert [build.id for build in eve.builds()] == [eve.build(build_id).id] == [build_id]
    assert eve.queue_counts() == {"source": (1, 0)}
    assert eve.whoami() == VISITOR


def test_a_packager_cancels_and_retries_its_own_builds(site: Site) -> None:
    ann = site.as_(ANN)
    build_id = one_build(ann)
    assert ann.build(build_id).owner == "ann"
    ended = ann.cancel(build_id)
    assert (ended.outcome, ended.reason) == (Outcome.CANCELLED, "cancelled by ann")
    assert [step.kind for step in ann.retry(build_id)] == ["fetch"]


def test_a_packager_does_not_go_before_others(site: Site, admin: FarmApi) -> None:
    ann = site.as_(ANN)
    with pytest.raises(NotPermitted, match="a priority above 0"):
        one_build(ann, priority=1)
    assert ann.builds() == ()
    assert ann.build(one_build(ann, priority=-1)).priority == -1
    assert admin.build(one_build(admin, priority=1)).priority == 1


def test_an_admin_acts_for_others_and_on_the_builds_of_others(site: Site, admin: FarmApi) -> None:
    build_id = one_build(admin, owner="ann")
    assert admin.build(build_id).owner == "ann"
    assert site.as_(ANN).cancel(build_id).reason == "cancelled by ann"
    admin.retry(build_id)
    assert admin.cancel(build_id).reason == "cancelled by root"


def test_an_actor_elsewhere_names_no_path_of_the_farms_machine(site: Site) -> None:
    local = BuildRequest(source=Source(kind=SourceKind.GIT, url="file:///srv/secret.git"), target="demo")
    with pytest.raises(BadSource, match="for its users alone"):
        site.as_(ANN).enqueue_many([local])
    assert site.as_(ANN).builds() == ()


# --- enqueue ----------------------------------------------------------------------------------------------------


def test_a_batch_is_enqueued_in_order_and_as_a_whole(admin: FarmApi) -> None:
    batch = admin.enqueue_many(admin.request(git=URL, ref=ref, target="demo") for ref in ("v1", "v2"))
    assert [build.last.source.ref for build in batch] == ["v1", "v2"]
    assert admin.batch(batch.id).builds == tuple(admin.build(build.id) for build in batch)
    wrong = BuildRequest(source=SOURCE, target="demo", priority=9999)
    with pytest.raises(BadRequest, match="--priority 9999"):
        admin.enqueue_many([REQUEST, wrong])
    with pytest.raises(BadRequest, match="at least one"):
        admin.enqueue_many([])
    assert len(admin.builds()) == 2


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"target": "dmeo"}, UnknownTarget),
        ({"arches": ["s390x"]}, UnknownArch),
        ({"git": None}, BadRequest),
        ({"ref": "-x"}, BadSource),
        ({"owner": "a\x1b"}, BadRequest),
        ({"limits": {"memory_bytes": 1}}, BadRequest),
    ],
)
def test_a_wrong_request_is_refused(admin: FarmApi, asked: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        one_build(admin, **asked)
    assert admin.builds() == ()


# --- builds -----------------------------------------------------------------------------------------------------


def test_builds_are_listed_newest_first_and_filtered(site: Site, admin: FarmApi) -> None:
    ids = [one_build(admin) for _ in range(3)]
    admin.cancel(ids[0])
    assert [build.id for build in admin.builds()] == ids[::-1]
    assert [build.id for build in admin.builds(limit=1)] == ids[2:]
    assert [build.id for build in admin.builds(before=ids[2], limit=1)] == [ids[1]]
    assert [build.id for build in admin.builds(before=ids[1], outcome=Outcome.CANCELLED)] == [ids[0]]
    assert [build.id for build in admin.builds(outcome=Outcome.CANCELLED)] == ids[:1]
    assert [build.id for build in admin.builds(status=Status.READY, target="demo")] == ids[:0:-1]
    assert admin.builds(target="another") == ()


def test_unknown_builds_and_batches_are_named(admin: FarmApi) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: admin.build(99),
        lambda: admin.handle(99),
        lambda: admin.cancel(99),
        lambda: admin.retry(99),
        lambda: admin.log(99),
        lambda: admin.artifacts(99),
        lambda: list(admin.watch(99)),
        lambda: admin.batch(99),
    )
    for call in calls:
        with pytest.raises(NotFound, match=r"there is no (build|batch) 99"):
            call()


def test_a_finished_build_is_not_cancelled_and_a_running_one_not_retried(admin: FarmApi) -> None:
    build_id = one_build(admin)
    with pytest.raises(WrongState, match="still going on"):
        admin.retry(build_id)
    admin.cancel(build_id)
    with pytest.raises(WrongState, match="over already"):
        admin.cancel(build_id)
    with pytest.raises(BadRequest, match="not a step"):
        admin.retry(build_id, "compile")


def test_a_wait_ends_with_the_build_and_gives_its_events(site: Site, admin: FarmApi) -> None:
    build_id = one_build(admin)
    events: list[Event] = []
    begun = threading.Event()

    def hear(event: Event) -> None:
        events.append(event)
        begun.set()

    thread = threading.Thread(target=lambda: (begun.wait(30), site.driven.finish(build_id)))
    thread.start()
    ended = admin.wait(build_id, timeout_s=60, on_event=hear)
    thread.join()
    assert ended.outcome is Outcome.SUCCEEDED
    assert [event.outcome for event in events if event.step is None][-1] is Outcome.SUCCEEDED
    assert {event.build for event in events} == {build_id}


def test_a_watch_and_a_wait_end_at_their_timeout(admin: FarmApi) -> None:
    build_id = one_build(admin)
    *seen, last = admin.watch(build_id, timeout_s=0.05)
    assert (last, {build.id for build in seen if build}) == (None, {build_id})
    with pytest.raises(WaitTimedOut, match="it goes on"):
        admin.handle(build_id).wait(timeout_s=0.05)


def test_a_log_is_followed_from_the_running_attempt_to_its_end(site: Site, admin: FarmApi) -> None:
    build_id = one_build(admin)
    with pytest.raises(WrongState, match="has no log yet"):
        admin.log(build_id)
    site.driven.send()
    site.driven.start("1.fetch.1")
    site.leases.show_log("1.fetch.1", 0, b"one\n\xfftwo")
    chunks = admin.log(build_id, follow=True)
    start = next(chunks)
    site.driven.succeed("1.fetch.1", b"one\n\xfftwo\nthree\n")
    assert start + b"".join(chunks) == b"one\n\xfftwo\nthree\n"
    assert b"".join(admin.log(build_id, "fetch", attempt=1)) == b"one\n\xfftwo\nthree\n"
    with pytest.raises(NotFound, match="has no attempt 2"):
        admin.log(build_id, "fetch", attempt=2)


def test_artifacts_are_listed_read_and_downloaded(site: Site, admin: FarmApi, tmp_path: Path) -> None:
    build_id = one_build(admin)
    site.driven.finish(build_id)
    files = {file.artifact.name: file.artifact for file in admin.artifacts(build_id)}
    rpm = files["hello-1-1.x86_64.rpm"]
    assert (rpm.kind, admin.read(rpm)) == (ArtifactKind.RPM, b"a package")
    with admin.open_artifact(rpm) as file:
        assert (file.read(2), file.read()) == (b"a ", b"package")
    paths = {path.name: path for path in admin.download(build_id, tmp_path / "into")}
    assert paths[rpm.name].read_bytes() == b"a package"
    paths[rpm.name].write_bytes(b"another")
    with pytest.raises(WrongState, match="exists with other content"):
        admin.download(build_id, tmp_path / "into")


def test_only_old_artifacts_that_no_build_names_are_collected(site: Site, admin: FarmApi) -> None:
    build_id = one_build(admin)
    site.driven.finish(build_id)
    for dry_run in (True, False):
        found = admin.collect_artifacts(since=datetime.now(UTC) - timedelta(days=1), dry_run=dry_run)
        assert (found.looked_at > 0, found.files) == (True, 0)
    assert all(admin.read(file.artifact) for file in admin.artifacts(build_id))


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_artifacts_are_collected_since_any_time(site: Site, admin: FarmApi, text: str) -> None:
    build_id = one_build(admin)
    site.driven.finish(build_id)
    found = admin.collect_artifacts(since=datetime.fromisoformat(text), dry_run=True)
    assert (found.looked_at > 0, found.files) == (True, 0)


# --- repositories and targets -----------------------------------------------------------------------------------


def test_a_repository_is_described_and_rolled_back(site: Site, admin: FarmApi, tmp_path: Path) -> None:
    site.publish(tmp_path, "one", "two")
    assert (admin.repository("demo", "x86_64").version, admin.repository_name("demo", "x86_64")) == (2, OS)
    assert [one.number for one in admin.repository_versions("demo", Arch.X86_64)] == [2, 1, 0]
    done = admin.rollback("demo", to=1, arch="x86_64")
    assert (done.before.number, done.after.number, done.after.packages) == (2, 3, 1)
    here = site.driven.farm.repository_versions("demo", "x86_64")[0]  # a client of a server is shown another address
    assert site.driven.store.heads()[OS.path] == Head(version=3, url=here.url)
    with pytest.raises(NotFound, match="has no version 9"):
        admin.rollback("demo", to=9, arch="x86_64")
    with pytest.raises(BadRequest, match="not a kind of repository"):
        admin.repository_versions("demo", "x86_64", kind="doc")
    with pytest.raises(UnknownArch):
        admin.repository("demo", "s390x")
    assert all(one.is_ok for one in admin.check_repositories())


def test_targets_are_found_by_name(admin: FarmApi) -> None:
    assert admin.targets()["demo"] == admin.target("demo")
    with pytest.raises(UnknownTarget, match="did you mean demo"):
        admin.target("dmeo")


# --- hosts ------------------------------------------------------------------------------------------------------


def test_a_host_is_drained_by_an_actor_and_undrained(site: Site, admin: FarmApi) -> None:
    with pytest.raises(NotFound, match="no worker on host 'one'"):
        admin.drain_host("one")
    site.leases.announce(worker_facts("build@one"))
    assert [worker.name for worker in admin.workers()] == ["build@one"]
    assert [slots > 0 for slots, _ in admin.serving().values()] == [True]
    hold = admin.drain_host("one", reason="new disks", hands_back=True)
    assert (hold.kind, hold.by, hold.reason, hold.hands_back) == (HoldKind.DRAINED, "root", "new disks", True)
    assert admin.host_holds() == {"one": hold}
    assert [slots for slots, _ in admin.serving().values()] == [0]
    assert admin.undrain_host("one").kind is HoldKind.DRAINED
    assert admin.host_holds() == {}
    with pytest.raises(WrongState, match="neither drained nor quarantined"):
        admin.undrain_host("one")


def test_running_attempts_are_listed_by_worker_and_host(site: Site, admin: FarmApi) -> None:
    one_build(admin)
    site.driven.send()
    site.driven.start("1.fetch.1", worker="source@one")
    assert admin.running_on() == {"source@one": ("1.fetch.1",), "one": ("1.fetch.1",)}


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS))
def test_without_a_broker_nothing_is_enqueued_and_builds_are_still_shown(
    name: str, tmp_path: Path, database_url: str
) -> None:
    with (
        driven_farm(tmp_path, with_redis=False, database_url=database_url) as driven,
        IMPLEMENTATIONS[name](driven.settings, ADMIN) as farm,
    ):
        for call in (farm.ping, farm.workers, farm.serving, lambda: one_build(farm)):
            with pytest.raises(FarmNotRunning, match=r"does not answer|is not running"):
                call()
        assert farm.builds() == ()


# --- tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_made_listed_and_revoked(site: Site, admin: FarmApi) -> None:
    made = admin.new_token(name="laptop", roles=[Role.PACKAGER], bearer="ann", expires=timedelta(days=1))
    token = made.token
    assert (token.actor, token.roles, token.created_by) == ("ann", (Role.PACKAGER,), "root")
    assert token.expires_at - token.created_at == timedelta(days=1)
    assert made.secret.startswith(f"farm_{token.id}_")
    assert token in admin.tokens()
    service = FarmService(Connections.open(site.driven.settings))
    assert service.bearer(made.secret).actor == "ann"
    assert next(one for one in admin.tokens() if one.id == token.id).last_used_at is not None
    assert admin.revoke_token(token.id).revoked_by == "root"
    with pytest.raises(NotLoggedIn, match="is revoked since"):
        service.bearer(made.secret)
    service.close()
    with pytest.raises(WrongState, match="revoked already"):
        admin.revoke_token(token.id)
    with pytest.raises(NotFound, match="no token 99"):
        admin.revoke_token(99)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"roles": []}, "at least one role"),
        ({"expires": timedelta(days=367)}, "at most 366 days"),
        ({"expires": timedelta(0)}, "at most 366 days"),
        ({"name": "\x1b"}, "printable"),
        ({"bearer": "a\x1b"}, "owner"),
    ],
)
def test_a_token_that_cannot_be_is_refused(admin: FarmApi, asked: dict[str, object], says: str) -> None:
    before = admin.tokens()
    with pytest.raises(BadRequest, match=says):
        admin.new_token(**{"name": "one", "roles": [Role.READER], **asked})  # type: ignore[arg-type]
    assert admin.tokens() == before
