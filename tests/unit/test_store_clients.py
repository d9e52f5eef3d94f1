"""The actions of clients on the store, on SQLite."""

import sqlite3
from pathlib import Path

import pytest

from farm.errors import BadSettings, FarmNotRunning, NotFound, WrongState
from farm.model.arch import Arch
from farm.model.build import BuildOptions, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.store import schema
from farm.store.store import Store


def request(
    url: str = "https://example.org/hello.git", *, arches: tuple[Arch, ...] = (Arch.X86_64,), priority: int = 0
) -> BuildRequest:
    source = Source(kind=SourceKind.GIT, url=url, ref="v1")
    return BuildRequest(source=source, target="demo", arches=arches, priority=priority)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'farm.db'}"


@pytest.fixture
def store(url: str) -> Store:
    return Store.open(url, create=True)


def test_a_new_build_is_ready_and_says_what_its_steps_wait_for(store: Store) -> None:
    batch = store.add_batch([request(), request("https://example.org/other.git")], owner="ann")

    assert [build.package for build in batch.builds] == ["hello", "other"]
    build = store.build(batch.builds[0].id)
    assert (build.status, build.owner, build.batch_id) == (Status.READY, "ann", batch.id)
    fetch, srpm = build.steps
    assert (fetch.kind, fetch.status) == ("fetch", Status.READY)
    assert (srpm.kind, srpm.status, srpm.waits_for) == ("srpm", Status.WAITING, "waits for fetch")


def test_a_build_keeps_everything_that_was_asked_for(store: Store) -> None:
    options = BuildOptions(with_=("tests",), without=("docs",), defines=(("a", "b c"),), timeout_s=5)
    source = Source(kind=SourceKind.SRPM, sha256="0" * 64, filename="a-1-1.src.rpm")
    wanted = BuildRequest(source=source, target="t", arches=tuple(Arch), options=options, priority=3)
    build = store.build(store.add_batch([wanted], owner="ann").builds[0].id)
    assert (build.source, build.options, build.arches, build.priority) == (source, options, tuple(Arch), 3)
    assert build.created_at.utcoffset() is not None


def test_a_build_has_the_record_of_the_target_that_it_was_asked_for_with(store: Store) -> None:
    other = BuildRequest(source=Source(kind=SourceKind.GIT, url="https://example.org/a.git"), target="other")
    batch = store.add_batch([request(), other], owner="ann", targets={"demo": "a" * 64})
    assert [build.target_sha256 for build in batch.builds] == ["a" * 64, None]
    with store.read_view() as view:
        ready = view.ready("source", 0, "ann", most=10)
    assert [one.target_sha256 for one in ready] == ["a" * 64, None]


def test_credentials_are_not_shown_to_clients(store: Store, tmp_path: Path) -> None:
    build = store.add_batch([request("https://me:secret@example.org/hello.git")], owner="ann").builds[0]
    assert build.source.url == "https://***@example.org/hello.git"
    assert "secret" not in repr((build, store.build(build.id), store.builds(), store.batch(build.batch_id)))
    store.close()
    rows = sqlite3.connect(tmp_path / "farm.db").execute("SELECT url FROM source_secret").fetchall()
    assert rows == [("https://me:secret@example.org/hello.git",)]


def test_builds_come_newest_first_and_can_be_chosen(store: Store) -> None:
    batch = store.add_batch([request() for _ in range(5)], owner="ann")
    store.cancel(batch.builds[1].id, by="ann")
    assert [build.id for build in store.builds(limit=3)] == [5, 4, 3]
    assert [build.id for build in store.builds(outcome=Outcome.CANCELLED)] == [2]
    assert [build.id for build in store.builds(status=Status.READY, target="demo")] == [5, 4, 3, 1]
    assert store.builds(target="other") == ()


def test_cancelling_ends_every_step_and_says_by_whom(store: Store) -> None:
    build = store.add_batch([request()], owner="ann").builds[0]
    assert store.cancel(build.id, by="bob") == ()
    build = store.build(build.id)
    assert (build.status, build.outcome, build.reason) == (Status.FINISHED, Outcome.CANCELLED, "cancelled by bob")
    assert {step.outcome for step in build.steps} == {Outcome.CANCELLED}
    with pytest.raises(WrongState, match="cancelled"):
        store.cancel(build.id, by="bob")


def test_a_cancelled_build_can_be_run_again_from_where_it_was(store: Store) -> None:
    build = store.add_batch([request()], owner="ann").builds[0]
    store.cancel(build.id, by="bob")
    (again,) = store.retry(build.id, by="ann")
    assert (again.kind, again.status) == ("fetch", Status.READY)
    build = store.build(build.id)
    assert (build.status, build.outcome, build.finished_at) == (Status.RUNNING, None, None)
    assert [step.status for step in build.steps] == [Status.READY, Status.WAITING]


def test_a_build_that_goes_on_cannot_be_run_again(store: Store) -> None:
    build = store.add_batch([request()], owner="ann").builds[0]
    for step in (None, "fetch", "srpm"):
        with pytest.raises(WrongState):
            store.retry(build.id, step=step, by="ann")


def test_a_missing_thing_is_named(store: Store) -> None:
    for look in (store.build, store.batch, lambda number: store.cancel(number, by="ann")):
        with pytest.raises(NotFound, match=r"12.*farm list"):
            look(12)
    build = store.add_batch([request()], owner="ann").builds[0]
    with pytest.raises(NotFound, match="no step build"):
        store.retry(build.id, step="build", by="ann")


def test_a_store_that_is_not_there_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(FarmNotRunning, match="farm up"):
        Store.open(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []
    sqlite3.connect(tmp_path / "other.db").close()
    with pytest.raises(FarmNotRunning, match="farm up"):
        Store.open(f"sqlite:///{tmp_path / 'other.db'}")
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one " * 100)
    with pytest.raises(FarmNotRunning):
        Store.open(f"sqlite:///{tmp_path / 'text.db'}", create=True)


def test_a_newer_schema_is_refused_naming_both(store: Store, url: str, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "farm.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for create in (False, True):
        with pytest.raises(FarmNotRunning, match=rf"9999.*{schema.REVISION}"):
            Store.open(url, create=create)


def test_other_databases_are_refused() -> None:
    for url in ("mysql://u@h/d", "nonsense"):
        with pytest.raises(BadSettings):
            Store.open(url)


def test_a_version_that_was_built_before_from_another_commit_is_a_warning_of_the_newer_build(store: Store) -> None:
    ids = [build.id for build in store.add_batch([request() for _ in range(4)], owner="ann").builds]
    column = schema.build.c
    for build_id, commit, outcome in zip(ids, "aabb", ("succeeded", "succeeded", "failed", "succeeded"), strict=True):
        values = {"nevra": "hello-1-1.src", "source_commit": commit * 40, "outcome": outcome}
        with store.writing() as connection:
            connection.execute(schema.build.update().where(column.id == build_id).values(**values))
    found = [store.build(build_id).warnings for build_id in ids]
    assert found[:2] == [(), ()]
    assert found[2] == found[3]
    assert found[3][0].startswith(f"hello-1-1.src was built before, by build {ids[1]} from commit aaaaaaaaaaaa; ")
