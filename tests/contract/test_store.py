"""The store on both databases: SQLite always, PostgreSQL where there is one or one can be made for the test."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from farm import wire
from farm.errors import WrongState
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import Build, BuildOptions, BuildRequest, Phase
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.work import AnyResult, StepResult
from farm.model.worker import HoldKind, HostHold
from farm.state.policy import RetryPolicy
from farm.steps.srpm import SRPM, SrpmResult
from farm.steps.upload import UploadResult
from farm.store import schema
from farm.store.database import make_engine
from farm.store.heads import Head
from farm.store.migrate import alembic_config
from farm.store.scheduling import Committed, Pick
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.store import Store
from farm.store.waiting import QueueSeen
from tests.fake_workers import Answer, artifact, fail, held_by, picked, report_for, settle_reports, succeed, token_of
from tests.messages import FILE
from tests.scheduling import ready

AROUND = SettlePolicy(retry=RetryPolicy(max_troubles=3, delay_s=5.0))
TROUBLE = wire.TroubleReport(code="network", retryable=True, message="no route to host")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url)
    yield store
    store.close()


def now() -> datetime:
    return datetime.now(UTC)


def add(store: Store, *, arches: tuple[Arch, ...] = (Arch.X86_64,), priority: int = 0, owner: str = "ann") -> int:
    source = Source(kind=SourceKind.GIT, url="https://me:secret@example.org/hello.git")
    request = BuildRequest(source=source, target="demo", arches=arches, priority=priority)
    return store.add_batch([request], owner=owner).builds[0].id


def send(store: Store, at: datetime | None = None) -> Committed:
    """Everything that is ready goes out."""
    return store.dispatch(picked(ready(store)), at or now())


def settle(store: Store, done: Committed, answers: dict[str, Answer] | None = None) -> Committed:
    """Every order of `done` is reported on."""
    reports = [
        report_for(
            order.message.attempt,
            token_of(order.message.attempt),
            order.message.kind,
            (answers or {}).get(order.message.kind),
        )
        for order in done.orders
    ]
    return settle_reports(store, reports, now(), AROUND)


def drive(store: Store, answers: dict[str, Answer] | None = None) -> None:
    """Until nothing is ready and nothing is out."""
    done = send(store)
    while done.orders:
        done = settle(store, done, answers)
        if not done.orders:
            done = send(store)


def steps(build: Build) -> dict[str, tuple[Status, Outcome | None]]:
    return {step.name: (step.status, step.outcome) for step in build.steps}


def test_migrations_make_the_schema_of_the_code(empty_database_url: str) -> None:
    Store.open(empty_database_url, create=True).close()
    engine = make_engine(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [schema.REVISION]


def test_the_outputs_of_an_older_database_keep_the_identities_of_packages(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    config = alembic_config()
    old = SrpmResult(
        srpm=FILE,
        identity="hello-1-1.src",
        build_requires=('a "nevra": b',),
        exclusive_arches=(),
        exclude_arches=(),
        noarch=True,
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for statement in (
            "INSERT INTO batch (id, owner, created_at) VALUES (1, 'x', '2026-01-01')",
            "INSERT INTO job (id, kind) VALUES (1, 'build')",
            (
                "INSERT INTO build (id, batch_id, package, source, target, arches, options, priority, owner, status,"
                " created_at) VALUES (1, 1, 'hello', '{}', 'demo', '[]', '{}', 0, 'x', 'finished', '2026-01-01')"
            ),
        ):
            connection.execute(sa.text(statement))
        connection.execute(
            sa.text(
                "INSERT INTO step (job_id, kind, arch, queue, urgency, owner, status, is_skipped, attempts, troubles,"
                " deaths, output) VALUES (1, 'srpm', '', 'source', 0, 'x', 'finished', FALSE, 1, 0, 0, :output)"
            ),
            {"output": wire.to_json(old).decode().replace('"identity":', '"nevra":')},
        )
    engine.dispose()
    store = Store.open(empty_database_url, create=True)
    with store.reading() as connection:
        text = connection.execute(sa.select(schema.step.c.output)).scalar_one()
        assert connection.execute(sa.select(schema.build.c.format)).scalar_one() == "rpm"
        assert connection.execute(sa.select(schema.build.c.project)).scalar_one() == "main"
    assert [(one.name, one.targets, one.members) for one in store.projects()] == [("main", (), ())]
    store.close()
    assert SRPM.decode(text) == old


def test_two_that_start_at_once_make_one_database(empty_database_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        stores = list(pool.map(lambda _: Store.open(empty_database_url, create=True), range(2)))
    assert add(stores[0]) == 1
    for store in stores:
        store.close()


def test_a_build_runs_through(store: Store) -> None:
    build_id = add(store, arches=(Arch.X86_64, Arch.AARCH64))
    drive(store)
    build = store.build(build_id)
    assert (build.status, build.outcome, build.package, build.nevra) == (
        Status.FINISHED,
        Outcome.SUCCEEDED,
        "hello",
        "hello-1-1.src",
    )
    assert set(steps(build).values()) == {(Status.FINISHED, Outcome.SUCCEEDED)}
    assert [attempt.label for step in build.steps for attempt in step.attempts] == [
        "1.fetch.1",
        "1.srpm.1",
        "1.build.x86_64.1",
        "1.upload.x86_64.1",
        "1.build.aarch64.1",
        "1.upload.aarch64.1",
    ]


def test_only_the_fetch_step_is_given_the_credentials(store: Store) -> None:
    add(store)
    fetch = send(store)
    assert fetch.orders[0].source.url == "https://me:secret@example.org/hello.git"
    srpm = settle(store, fetch)
    assert "secret" not in repr((srpm, fetch.events, store.build(1)))


def test_credentials_in_the_query_reach_the_fetch_step_alone_too(store: Store) -> None:
    url = "https://example.org/a-1-1.src.rpm?X-Amz-Signature=secret&part=1"
    request = BuildRequest(source=Source(kind=SourceKind.SRPM, url=url), target="demo", arches=(Arch.X86_64,))
    store.add_batch([request], owner="ann")
    fetch = send(store)
    assert fetch.orders[0].source.url == url
    srpm = settle(store, fetch)
    build = store.build(1)
    assert build.source.url == "https://example.org/a-1-1.src.rpm?X-Amz-Signature=***&part=1"
    assert "secret" not in repr((srpm, fetch.events, build))


def test_an_attempt_keeps_its_report(store: Store) -> None:
    add(store)
    log = artifact("fetch.log", ArtifactKind.LOG)
    answer = StepResult(
        outcome=Outcome.FAILED,
        reason="no such ref\0 \ud800",
        excerpt="around it",
        artifacts=(log, artifact("root.json", ArtifactKind.RECORD)),
        phases=(Phase(name="clone", seconds=0.5),),
        peak_memory_bytes=2**40,
    )
    settle(store, send(store), {"fetch": answer})
    (attempt,) = store.build(1).steps[0].attempts
    assert (attempt.reason, attempt.excerpt) == ("no such ref\ufffd ?", "around it")
    assert (attempt.artifacts, attempt.phases, attempt.peak_memory_bytes) == (
        answer.artifacts,
        answer.phases,
        2**40,
    )
    assert attempt.started_at is not None
    assert attempt.started_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("kind", "outcome", "skipped"),
    [
        ("fetch", Outcome.FAILED, ["srpm"]),
        ("srpm", Outcome.FAILED, []),
        ("build", Outcome.UNRESOLVABLE, ["upload x86_64", "upload ppc64le"]),
        ("build", Outcome.TIMED_OUT, ["upload x86_64", "upload ppc64le"]),
        ("upload", Outcome.OVER_LIMIT, []),
    ],
)
def test_files_that_a_failure_leaves(store: Store, kind: str, outcome: Outcome, skipped: list[str]) -> None:
    build_id = add(store, arches=(Arch.X86_64, Arch.PPC64LE))
    drive(store, {kind: fail(outcome=outcome)})
    build = store.build(build_id)
    assert (build.status, build.outcome) == (Status.FINISHED, outcome)
    found = [step.name for step in build.steps if step.outcome is Outcome.CANCELLED]
    assert found == skipped
    assert not [step for step in build.steps if step.name in skipped and step.attempts]
    assert (build.reason or "").startswith(str(kind))


def test_the_other_arches_go_on_when_one_fails(store: Store) -> None:
    add(store, arches=(Arch.X86_64, Arch.PPC64LE))
    srpm = settle(store, send(store))
    settle(store, srpm)
    both = send(store)
    first, second = [report_for(o.message.attempt, token_of(o.message.attempt), o.message.kind) for o in both.orders]
    bad = report_for(first.attempt, first.token, first.kind, fail())
    after = settle_reports(store, [bad, second], now(), AROUND)
    assert [order.message.attempt for order in after.orders] == ["1.upload.ppc64le.1"]
    settle(store, after)
    assert store.build(1).outcome is Outcome.FAILED
    assert steps(store.build(1))["upload ppc64le"] == (Status.FINISHED, Outcome.SUCCEEDED)


def test_an_attempt_is_settled_once_and_only_with_its_token(store: Store) -> None:
    add(store)
    done = send(store)
    order = done.orders[0]
    assert order.following is not None
    wrong = report_for(order.message.attempt, "guess", "fetch")
    early = report_for(order.following.attempt, token_of(order.following.attempt), "srpm")
    nonsense = [report_for(label, "t", "fetch") for label in ("", "1.", "x.fetch.1", "99.fetch.1", "9" * 40)]
    assert len(settle_reports(store, [wrong, early, *nonsense], now(), AROUND).late) == 7
    right = report_for(order.message.attempt, token_of(order.message.attempt), "fetch")
    assert settle_reports(store, [right, right], now(), AROUND).late == (right.attempt,)
    assert settle_reports(store, [right], now(), AROUND).late == (right.attempt,)


def test_a_report_that_makes_no_sense_is_the_workers_trouble(store: Store) -> None:
    add(store)
    done = send(store)
    message = done.orders[0].message
    bad = StepResult(outcome=Outcome.SUCCEEDED, artifacts=(), output=None)
    settle_reports(store, [report_for(message.attempt, token_of(message.attempt), message.kind, bad)], now(), AROUND)  # type: ignore[arg-type]
    step = store.build(1).steps[0]
    assert step.status is Status.WAITING
    assert "invalid report" in (step.waits_for or "")


@pytest.mark.parametrize("name", ["/etc/cron.d/farm", "../farm", "..", "", ".farm", "a\u202eb", "a" * 256])
@pytest.mark.parametrize("place", ["archive", "spec", "srpm", "rpm", "log"])
def test_no_worker_names_a_file_of_another_host(store: Store, place: str, name: str) -> None:
    """The next step's worker gets what a report says of an artifact."""
    add(store)
    kind = {"srpm": "srpm", "rpm": "build"}.get(place, "fetch")
    done = send(store)
    while (message := done.orders[0].message).kind != kind:
        done = settle(store, done)
        done = done if done.orders else send(store)
    given, lie = succeed(kind), artifact(name, ArtifactKind.LOG)
    output: Any = given.output
    match place:
        case "archive":
            output = replace(output, archive=lie)
        case "spec":
            output = replace(output, spec=name)
        case "srpm":
            output = replace(output, srpm=lie)
        case "rpm":
            output = replace(output, rpms=(lie,))
        case "log":
            given = replace(given, artifacts=(lie,))
    answer = replace(given, output=output)
    settle_reports(store, [report_for(message.attempt, token_of(message.attempt), kind, answer)], now(), AROUND)
    (step,) = (one for one in store.build(1).steps if one.kind == kind)
    assert step.status is Status.WAITING
    assert "invalid report" in (step.waits_for or "")


@pytest.mark.parametrize(
    ("is_noarch", "nevra", "is_sound"),
    [
        (False, "hello-1-1.x86_64", True),
        (False, "hello-1-1.noarch", True),
        (False, "hello-1-1.ppc64le", False),
        (False, "hello-1-1.src", False),
        (False, None, False),
        (True, "hello-1-1.noarch", True),
        (True, "hello-1-1.x86_64", False),
        (True, "hello-1-1.ppc64le", False),
    ],
)
def test_a_build_reports_packages_of_its_own_arch_alone(
    store: Store, nevra: str | None, *, is_noarch: bool, is_sound: bool
) -> None:
    build_id = add(store, arches=(Arch.X86_64, Arch.PPC64LE))
    done, srpm = send(store), succeed("srpm", noarch=is_noarch)
    while (message := done.orders[0].message).kind != "build":
        done = settle(store, done, {"srpm": srpm})
        done = done if done.orders else send(store)
    built = succeed("build")
    rpm = artifact("hello.rpm", ArtifactKind.RPM, nevra)
    answer = replace(built, output=replace(built.output, rpms=(rpm,)))  # type: ignore[type-var]
    settle_reports(store, [report_for(message.attempt, token_of(message.attempt), message.kind, answer)], now(), AROUND)
    step = next(one for one in store.build(build_id).steps if one.kind == "build")
    assert step.outcome is (Outcome.SUCCEEDED if is_sound else None)
    assert ("invalid report: package 'hello.rpm'" in (step.waits_for or "")) is not is_sound


def test_trouble_waits_longer_each_time_and_ends_after_the_last(store: Store) -> None:
    add(store)
    at = now()
    for wait_s in (5, 15, 45):
        done = send(store, at)
        report = report_for(done.orders[0].message.attempt, token_of(done.orders[0].message.attempt), "fetch", TROUBLE)
        settle_reports(store, [report], at, AROUND)
        fetch, srpm = store.build(1).steps
        assert (fetch.status, srpm.status, srpm.attempts) == (Status.WAITING, Status.WAITING, ())
        assert "after network: no route to host" in (fetch.waits_for or "")
        assert store.promote_due(at + timedelta(seconds=wait_s - 1), most=10).events == ()
        at += timedelta(seconds=wait_s)
        assert len(store.promote_due(at, most=10).events) == 1
    settle(store, send(store, at), {"fetch": TROUBLE})
    build = store.build(1)
    assert (build.outcome, build.reason) == (Outcome.ERRORED, "fetch: network: no route to host")
    assert len(build.steps[0].attempts) == 4


def test_a_source_whose_server_is_not_there_is_the_packages_failure_after_one_retry(store: Store) -> None:
    add(store)
    dead = wire.TroubleReport(code="source-unavailable", retryable=True, message="vm: http://x.invalid/a: not known")
    at = now()
    for wait_s in (5, 0):
        assert store.build(1).outcome is None
        attempt = send(store, at).orders[0].message.attempt
        settle_reports(store, [report_for(attempt, token_of(attempt), "fetch", dead)], at, AROUND)
        at += timedelta(seconds=wait_s)
        store.promote_due(at, most=10)
    build = store.build(1)
    assert build.outcome is Outcome.FAILED
    assert "http://x.invalid/a: not known; tried twice" in (build.reason or "")
    assert len(build.steps[0].attempts) == 2


def test_trouble_that_trying_again_cannot_mend_ends_at_once(store: Store) -> None:
    add(store)
    settle(store, send(store), {"fetch": wire.TroubleReport(code="x", retryable=False, message="no")})
    assert store.build(1).outcome is Outcome.ERRORED


@pytest.mark.parametrize(
    ("finding", "status", "outcome"),
    [
        (Finding.RUNNING, Status.RUNNING, None),
        (Finding.LOST, Status.READY, None),
        (Finding.UNSENT, Status.READY, None),
        (Finding.OVERDUE, Status.FINISHED, Outcome.TIMED_OUT),
        (Finding.REFUSED, Status.FINISHED, Outcome.ERRORED),
    ],
)
def test_findings_about_an_attempt(store: Store, finding: Finding, status: Status, outcome: Outcome | None) -> None:
    add(store)
    send(store)
    done = store.judge([Verdict(label="1.fetch.1", finding=finding, lease=held_by("w@h", "1.fetch.1"))], now(), AROUND)
    fetch, srpm = store.build(1).steps
    assert (fetch.status, fetch.outcome) == (status, outcome)
    assert bool(done.closes) == (finding is not Finding.RUNNING)
    if finding is not Finding.RUNNING:
        assert srpm.attempts == ()
        late = settle_reports(store, [report_for("1.fetch.1", "any", "fetch")], now(), AROUND)
        assert late.late == ("1.fetch.1",)


def test_no_label_is_used_twice(store: Store) -> None:
    add(store)
    seen = set()
    for _ in range(3):
        message = send(store).orders[0].message
        seen.add((message.attempt, token_of(message.attempt)))
        store.judge([Verdict(label=message.attempt, finding=Finding.UNSENT)], now(), AROUND)
    assert len({label for label, _ in seen}) == len({token for _, token in seen}) == 3


def test_a_retry_uses_the_recorded_inputs(store: Store) -> None:
    add(store)
    drive(store, {"upload": fail()})
    (step,) = store.retry(1, by="bob")
    assert step.name == "upload x86_64"
    (order,) = send(store).orders
    assert (order.message.attempt, order.following) == ("1.upload.x86_64.2", None)
    assert set(order.made) == {"srpm", "build"}


def test_a_step_that_succeeded_can_be_run_again_with_all_that_follows(store: Store) -> None:
    add(store, arches=(Arch.X86_64, Arch.AARCH64))
    drive(store)
    store.retry(1, step="build", arch=Arch.AARCH64, by="bob")
    assert steps(store.build(1))["upload aarch64"] == (Status.WAITING, None)
    assert steps(store.build(1))["upload x86_64"] == (Status.FINISHED, Outcome.SUCCEEDED)
    drive(store)
    assert store.build(1).outcome is Outcome.SUCCEEDED
    store.retry(1, step="srpm", by="bob")
    with pytest.raises(WrongState):
        store.retry(1, step="build", by="bob")
    drive(store, {"srpm": succeed("srpm", exclude=("aarch64",))})
    build = store.build(1)
    assert build.outcome is Outcome.SUCCEEDED
    assert steps(build)["build aarch64"] == (Status.FINISHED, Outcome.EXCLUDED)


def test_a_step_whose_input_failed_cannot_be_run_again_alone(store: Store) -> None:
    add(store)
    drive(store, {"build": fail()})
    with pytest.raises(WrongState, match="needs the results of build x86_64"):
        store.retry(1, step="upload", by="bob")
    with pytest.raises(WrongState, match="runs once"):
        store.retry(1, step="srpm", arch=Arch.X86_64, by="bob")


def test_a_build_without_any_arch_left_is_excluded(store: Store) -> None:
    add(store, arches=(Arch.X86_64, Arch.PPC64LE))
    drive(store, {"srpm": succeed("srpm", exclusive=("s390x",))})
    build = store.build(1)
    assert (build.outcome, build.reason) == (Outcome.EXCLUDED, "ExclusiveArch is s390x, without x86_64")
    with pytest.raises(WrongState, match="excluded"):
        store.retry(1, step="build", by="bob")


def test_a_retry_leaves_the_arch_alone_that_a_noarch_package_was_first_built_on(store: Store) -> None:
    build_id = add(store, arches=(Arch.X86_64, Arch.AARCH64))
    noarch = {"srpm": succeed("srpm", noarch=True)}
    drive(store, noarch)
    store.retry(build_id, by="ann", step="srpm")
    sent = send(store).orders[0].message
    report = report_for(sent.attempt, token_of(sent.attempt), "srpm", noarch["srpm"])
    settle_reports(store, [report], now(), replace(AROUND, native=(Arch.AARCH64,)))
    drive(store, noarch)
    build = store.build(build_id)
    assert build.outcome is Outcome.SUCCEEDED
    assert steps(build)["build x86_64"] == (Status.FINISHED, Outcome.EXCLUDED)
    assert steps(build)["build aarch64"] == (Status.FINISHED, Outcome.SUCCEEDED)
    with pytest.raises(WrongState, match=r"no step of build \d+ failed"):
        store.retry(build_id, by="ann")


def test_a_noarch_package_is_built_once_for_all_arches(store: Store) -> None:
    add(store, arches=(Arch.X86_64, Arch.AARCH64))
    settle(store, settle(store, send(store)), {"srpm": succeed("srpm", noarch=True)})
    assert list(steps(store.build(1))) == ["fetch", "srpm", "build x86_64", "upload x86_64"]
    upload = settle(store, send(store)).orders[0]
    assert upload.covers == (Arch.X86_64, Arch.AARCH64)


def test_cancel_works_wherever_a_build_is(store: Store) -> None:
    add(store)
    expected: list[set[str]] = [set(), {"1.fetch.1", "1.srpm.1"}]
    for labels in expected:
        assert set(store.cancel(1, by="bob")) == labels
        assert store.build(1).outcome is Outcome.CANCELLED
        assert set(store.closing()) == labels
        store.closed(store.closing())
        store.retry(1, by="bob")
        done = send(store)
    late = settle(store, done)
    assert late.late == ()
    store.cancel(1, by="bob")
    after = settle_reports(store, [report_for("1.srpm.2", "t", "srpm")], now(), AROUND)
    assert after.late == ("1.srpm.2",)


def test_ready_work_comes_by_priority_and_owner_and_age(store: Store) -> None:
    for owner, priority in (("ann", 0), ("bob", 0), ("ann", 5), ("ann", 0)):
        add(store, owner=owner, priority=priority)
    with store.read_view() as look:
        assert look.groups(most=10) == {"source": [(5, "ann"), (0, "ann"), (0, "bob")]}
        assert [one.build_id for one in look.ready("source", 0, "ann", most=9)] == [1, 4]
    assert "position 1" in (_wait_with_queue(store, 3) or "")
    assert "position 4" in (_wait_with_queue(store, 4) or "")


def _wait_with_queue(store: Store, build_id: int) -> str | None:
    store.note_queues({"source": QueueSeen(slots=2, busy=2)})
    return store.build(build_id).steps[0].waits_for


def test_clients_and_scheduler_do_not_lose_each_others_changes(store: Store) -> None:
    ids = [add(store) for _ in range(20)]
    done = send(store)
    reports = [report_for(o.message.attempt, token_of(o.message.attempt), o.message.kind) for o in done.orders]
    start = threading.Barrier(2)

    def cancel() -> None:
        start.wait()
        for build_id in ids:
            store.cancel(build_id, by="bob")

    with ThreadPoolExecutor(1) as pool:
        cancelled = pool.submit(cancel)
        start.wait()
        for report in reports:
            settle_reports(store, [report], now(), AROUND)
        cancelled.result()
    assert {store.build(build_id).outcome for build_id in ids} == {Outcome.CANCELLED}
    with store.read_view() as look:
        assert look.live() == ()


def test_a_long_time_limit_and_options_reach_the_order(store: Store) -> None:
    options = BuildOptions(timeout_s=7)
    source = Source(kind=SourceKind.GIT, url="https://example.org/a.git")
    store.add_batch([BuildRequest(source=source, target="demo", arches=(Arch.X86_64,), options=options)], owner="ann")
    with store.read_view() as look:
        (ready,) = look.ready("source", 0, "ann", most=1)
    assert (ready.package, ready.options) == ("a", options)
    done = store.dispatch([Pick(ready=ready, wall_s=7, following_wall_s=8)], now())
    assert (done.orders[0].wall_s, done.orders[0].options) == (7, options)
    done = settle(store, done, {"fetch": succeed("fetch")})
    assert done.orders[0].wall_s == 8


PATH = "demo/x86_64/os"


def published(version: int, *, path: str = PATH, url: str | None = None) -> AnyResult:
    url = f"https://farm/{path}/{version}/" if url is None else url
    return StepResult(outcome=Outcome.SUCCEEDED, output=UploadResult(versions=((path, version, url),)))


def head(version: int, path: str = PATH) -> Head:
    return Head(version=version, url=f"https://farm/{path}/{version}/")


def test_an_uploads_report_writes_no_head_and_has_the_back_end_asked(store: Store) -> None:
    store.publish_head(PATH, head(4))
    add(store)
    drive(store, {"upload": published(4, url="http://evil/")})
    assert store.heads() == {PATH: head(4)}, "nothing is new"
    add(store)
    drive(store, {"upload": published(5, url="http://evil/")})
    assert store.heads() == {}


def test_a_head_that_only_the_scheduler_remembers_is_doubted_too(store: Store) -> None:
    for _ in range(2):
        add(store)
    done = send(store)
    for _ in range(2):
        done = settle(store, done)
    done = settle(store, send(store))
    answers = [published(6), published(5)]
    reports = [
        report_for(order.message.attempt, token_of(order.message.attempt), "upload", answer)
        for order, answer in zip(done.orders, answers, strict=True)
    ]
    assert settle_reports(store, reports, now(), AROUND).heads == {PATH: None}


def test_the_back_ends_answer_is_recorded_unless_another_process_was_quicker(store: Store) -> None:
    assert store.note_head(PATH, head(3), instead_of=None) == head(3)
    assert store.note_head(PATH, head(2), instead_of=None) == head(3)
    store.publish_head(PATH, head(8))
    assert store.note_head(PATH, head(4), instead_of=head(3)) == head(8)
    assert store.note_head(PATH, head(1), instead_of=head(8)) == head(1)
    assert store.heads() == {PATH: head(1)}


@pytest.mark.parametrize(
    "answer",
    [
        published(1, path="other/x86_64/os"),
        published(1, path="demo/x86\n_64/os"),
        published(0),
        published(-1),
        published(2**63),
        published(1, path="demo/aarch64/os"),
        published(1, path="demo/logs"),
        published(1, path="demo/x86_64/os/../../source"),
    ],
)
def test_a_head_that_makes_no_sense_is_trouble_and_is_not_written(store: Store, answer: AnyResult) -> None:
    add(store)
    settle(store, settle(store, send(store)))
    settle(store, settle(store, send(store)), {"upload": answer})
    assert store.heads() == {}
    (attempt,) = store.build(1).steps[-1].attempts
    assert "invalid report" in (attempt.reason or "")


def test_work_that_cannot_be_made_now_is_tried_again_later(store: Store) -> None:
    add(store)
    settle(store, settle(store, send(store)))
    label = send(store).orders[0].message.attempt
    verdict = Verdict(label=label, finding=Finding.DEFERRED, message="repository: no answer")
    assert store.judge([verdict], now(), AROUND).closes == (label, "1.upload.x86_64.1")
    build, upload = store.build(1).steps[2:]
    assert (build.status, upload.status) == (Status.WAITING, Status.WAITING)
    assert "after repository: no answer" in (build.waits_for or "")


def test_a_persons_drain_and_the_farms_quarantine_at_once_leave_the_drain(database_url: str) -> None:
    at = now()
    quarantine = HostHold(host="one", kind=HoldKind.QUARANTINED, reason="trouble", by="the farm", at=at, until_at=at)
    drain = HostHold(host="one", kind=HoldKind.DRAINED, reason="disks", by="ann", at=at)
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        stores = [stack.enter_context(closing(Store.open(database_url))) for _ in range(3)]
        for _ in range(10):
            stores[0].release("one", at)
            jobs = [pool.submit(stores[n].hold, hold) for n, hold in enumerate((quarantine, drain, quarantine))]
            for job in jobs:
                job.result(30)
            assert stores[0].holds()["one"].kind is HoldKind.DRAINED


def test_builds_are_found_by_how_they_ended(store: Store) -> None:
    build_id = add(store)
    store.cancel(build_id, by="ann")
    for status in (None, Status.FINISHED):
        assert [one.id for one in store.builds(status=status, outcome=Outcome.CANCELLED)] == [build_id]
    assert store.builds(status=Status.READY, outcome=Outcome.CANCELLED) == ()
