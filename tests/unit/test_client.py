"""The Python interface on a real database, artifact store and Redis; a test plays scheduler and workers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from farm import Farm
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.client import Event
from farm.config import Settings
from farm.errors import (
    BadRequest,
    BadSource,
    FarmNotRunning,
    NotFound,
    UnknownArch,
    UnknownTarget,
    WaitTimedOut,
    WrongState,
)
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from farm.service import watch
from farm.store.heads import Head
from tests.driven_farm import DrivenFarm, driven_farm
from tests.redis_server import redis_server
from tests.rpms import LEAD, make_rpm, sha256

URL = "https://example.org/hello.git"


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path) as driven:
        yield driven


@pytest.fixture
def farm(driven: DrivenFarm) -> Farm:
    return driven.farm


def ask(farm: Farm, **more: object) -> int:
    return farm.enqueue(**{"git": URL, "target": "demo", "arches": ["x86_64"], **more}).id  # type: ignore[arg-type]


def test_the_documented_example_runs_as_written(driven: DrivenFarm) -> None:
    def work() -> None:
        driven.finish(1)

    with Farm.connect(driven.settings) as farm:
        build = farm.enqueue(git="https://example.org/hello.git", ref="v2.10", target="demo", arches=["x86_64"])
        events: list[Event] = []
        thread = threading.Thread(target=work)
        thread.start()
        result = build.wait(timeout_s=30, on_event=events.append)
        thread.join()
        farm.retry(build, step="build", arch="x86_64")
    assert result.outcome is Outcome.SUCCEEDED
    assert [str(event).split(" in ")[0] for event in events if event.status is Status.FINISHED][
        -1
    ] == "1 hello succeeded"


def test_a_build_is_asked_for_with_everything_that_was_said(farm: Farm) -> None:
    build = farm.build(
        ask(farm, ref="v1", subdir="a", spec="b.spec", with_=["x"], without=["y"], defines={"dist": ".el9"},
            timeout_s=9, priority=7, owner="bob")
    )  # fmt: skip
    assert build.source == Source(kind=SourceKind.GIT, url=URL, ref="v1", subdir="a", spec="b.spec")
    assert (build.options.with_, build.options.without, build.options.timeout_s) == (("x",), ("y",), 9)
    assert (build.options.defines, build.priority, build.owner) == ((("dist", ".el9"),), 7, "bob")


def test_no_arches_means_all_of_the_targets(farm: Farm) -> None:
    assert farm.build(ask(farm, arches=[])).arches == tuple(Arch)


def test_a_local_src_rpm_is_uploaded(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "hello-1-1.src.rpm"
    path.write_bytes(LEAD)
    build = farm.enqueue(srpm=path, target="demo").last
    assert (build.source.filename, build.package) == ("hello-1-1.src.rpm", "hello-1-1")


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"target": "dmeo"}, UnknownTarget, "did you mean demo"),
        ({"arches": ["s390x"]}, UnknownArch, "is not built for 's390x'"),
        ({"git": "/no/such"}, BadSource, "does not exist"),
        ({"git": None}, BadRequest, "either"),
        ({"srpm": "https://example.org/a.src.rpm"}, BadRequest, "either"),
        ({"git": None, "srpm": "/no/such.src.rpm"}, BadSource, "does not exist"),
        ({"git": None, "srpm": "https://example.org/a.src.rpm", "ref": "v1"}, BadRequest, "no ref"),
        ({"priority": 1001}, BadRequest, "--priority"),
        ({"defines": [("x y", "1")]}, BadRequest, "--define"),
        ({"timeout_s": 0}, BadRequest, "--timeout"),
        ({"with_": ["a b"]}, BadRequest, "--with"),
        ({"owner": "\x1b"}, BadRequest, "owner"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(
    farm: Farm, asked: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ask(farm, **asked)
    assert farm.builds() == ()
    assert not farm.settings.artifacts.exists()


def test_a_src_rpm_is_not_stored_when_something_else_is_wrong(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "hello-1-1.src.rpm"
    path.write_bytes(LEAD)
    with pytest.raises(BadRequest):
        farm.enqueue(srpm=path, target="demo", priority=5000)
    assert not farm.settings.artifacts.exists()


def test_a_batch_is_all_or_nothing(farm: Farm) -> None:
    good = farm.request(git=URL, target="demo")
    bad = BuildRequest(source=good.source, target="demo", priority=9999)
    with pytest.raises(BadRequest):
        farm.enqueue_many([good, bad])
    with pytest.raises(BadRequest, match="at least one"):
        farm.enqueue_many([])
    assert farm.builds() == ()
    batch = farm.enqueue_many([good, good])
    assert len(batch) == 2
    assert [build.id for build in batch.refresh().builds] == [handle.id for handle in batch] == [1, 2]
    for handle in batch:
        handle.cancel()
    assert {build.outcome for build in batch.wait(timeout_s=10)} == {Outcome.CANCELLED}


# --- a farm that is not there ------------------------------------------------------------------------------------


def test_without_a_farm_the_message_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(FarmNotRunning, match=f"data directory {tmp_path}; start it with `farm up`"):
        Farm.connect(Settings.from_env({"FARM_DATA": str(tmp_path)}))


def test_while_the_broker_is_away_nothing_is_enqueued_and_everything_can_be_seen(tmp_path: Path) -> None:
    with driven_farm(tmp_path, with_redis=False) as driven:
        with pytest.raises(FarmNotRunning, match="start it with `farm up`"):
            ask(driven.farm)
        assert driven.farm.builds() == ()
        with pytest.raises(FarmNotRunning):
            driven.farm.workers()
        with redis_server(driven.settings.socket):
            build = ask(driven.farm)
        assert driven.farm.build(build).status is Status.READY
        assert driven.farm.cancel(build).outcome is Outcome.CANCELLED
        assert driven.farm.wait(build, timeout_s=5).outcome is Outcome.CANCELLED
        driven.farm.retry(build)
        with pytest.raises(WaitTimedOut):
            driven.farm.wait(build, timeout_s=0.01)


# --- waiting ----------------------------------------------------------------------------------------------------


def test_waiting_returns_when_the_end_is_told_of_and_not_at_the_next_look(
    driven: DrivenFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = driven.farm.handle(ask(driven.farm))
    monkeypatch.setattr(watch, "POLL_S", 3600.0)
    waits = threading.Event()

    def end() -> None:
        waits.wait(10)
        driven.farm.cancel(build.id)
        driven.tell(build.id)

    thread = threading.Thread(target=end)
    thread.start()
    assert build.wait(timeout_s=3600, on_event=lambda _event: waits.set()).outcome is Outcome.CANCELLED
    thread.join()


def test_an_end_without_an_event_is_found_all_the_same(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    waits = threading.Event()
    thread = threading.Thread(target=lambda: (waits.wait(10), driven.store.cancel(build_id, by="x")))
    thread.start()
    result = driven.farm.wait(build_id, timeout_s=10, on_event=lambda _event: waits.set())
    thread.join()
    assert result.outcome is Outcome.CANCELLED


def test_a_wait_for_an_ended_build_returns_at_once_and_can_be_repeated(driven: DrivenFarm) -> None:
    build = driven.farm.handle(ask(driven.farm))
    build.cancel()
    assert build.wait(timeout_s=0).outcome is Outcome.CANCELLED
    assert build.wait().outcome is Outcome.CANCELLED


def test_waiting_too_long_says_that_the_build_goes_on(driven: DrivenFarm) -> None:
    build = driven.farm.handle(ask(driven.farm))
    with pytest.raises(WaitTimedOut, match=r"still ready after 0.05 s; it goes on: `farm status 1`"):
        build.wait(timeout_s=0.05)


def test_noise_about_other_builds_does_not_keep_a_wait_from_ending(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    leases = Leases(driven.settings)
    stop = threading.Event()

    def chatter() -> None:
        while not stop.wait(0.01):
            leases.publish({"build": 99, "status": "running"})

    thread = threading.Thread(target=chatter)
    thread.start()
    with pytest.raises(WaitTimedOut):
        driven.farm.wait(build_id, timeout_s=0.1)
    stop.set()
    thread.join()
    leases.close()


# --- events -----------------------------------------------------------------------------------------------------


def test_events_tell_what_happened_in_words(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    told: list[str] = []
    snapshots = driven.farm.handle(build_id)
    driven.to_build(build_id)
    driven.start("1.build.x86_64.1", worker="build@two")
    started = threading.Event()

    def hear(event: Event) -> None:
        told.append(str(event))
        started.set()

    thread = threading.Thread(target=lambda: (started.wait(10), driven.fail("1.build.x86_64.1", "no such file")))
    thread.start()
    snapshots.wait(timeout_s=10, on_event=hear)
    thread.join()
    assert "1 hello build x86_64 running on build@two" in told
    assert any(line.startswith("1 hello fetch succeeded in ") for line in told)
    assert any(line.startswith("1 hello build x86_64 failed in") and line.endswith(": no such file") for line in told)
    assert told[-1].startswith("1 hello failed in")
    assert told[-1].endswith("build x86_64: no such file")


# --- cancel, retry ----------------------------------------------------------------------------------------------


def test_cancelling_has_the_scheduler_close_the_leases_of_running_steps(driven: DrivenFarm) -> None:
    """A client needs no right on any lease: it writes SQL, and wakes the scheduler."""
    build_id = ask(driven.farm)
    driven.send()
    control = Control(driven.settings)
    while control.receive(timeout_s=0.01).documents:  # what asking woke
        control.acknowledge()
    with redis.Redis.from_url(driven.settings.redis) as client:
        client.hset("farm:lease:1.fetch.1", mapping={"holder": "x", "worker": "w@h"})
        ended = driven.farm.cancel(build_id)
        assert client.exists("farm:lease:1.fetch.1")
        assert not list(client.scan_iter("farm:closed:*"))
    assert set(driven.store.closing()) == {"1.fetch.1", "1.srpm.1"}
    assert control.receive(timeout_s=1).documents == 1
    control.close()
    assert (ended.status, ended.outcome, ended.reason) == (Status.FINISHED, Outcome.CANCELLED, "cancelled by ann")
    with pytest.raises(WrongState, match="over already"):
        driven.farm.cancel(build_id)
    with pytest.raises(NotFound, match="there is no build 99"):
        driven.farm.cancel(99)


def test_retry_runs_failed_steps_again(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    with pytest.raises(WrongState, match="still going on"):
        driven.farm.retry(build_id)
    driven.to_build(build_id)
    driven.fail("1.build.x86_64.1")
    (step,) = driven.farm.retry(build_id)
    assert (step.kind, step.arch) == ("build", Arch.X86_64)
    with pytest.raises(BadRequest, match="not a step"):
        driven.farm.retry(build_id, step="compile")


# --- logs -------------------------------------------------------------------------------------------------------


def test_the_log_is_by_default_that_of_the_step_that_failed(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    with pytest.raises(WrongState, match="fetch of build 1 has no log yet"):
        driven.farm.log(build_id)
    driven.to_build(build_id)
    driven.fail("1.build.x86_64.1", log=b"bytes \xff\x1b[0m\n")
    assert b"".join(driven.farm.log(build_id)) == b"bytes \xff\x1b[0m\n"
    assert b"".join(driven.farm.log(build_id, "srpm")) == b"all is well\n"
    with pytest.raises(NotFound, match="has no attempt 7; it has 1"):
        driven.farm.log(build_id, "build", "x86_64", 7)
    with pytest.raises(NotFound, match="has no step build aarch64"):
        driven.farm.log(build_id, "build", "aarch64")
    with pytest.raises(WrongState, match="upload x86_64 of build 1 has no log yet: build x86_64 failed"):
        driven.farm.log(build_id, "upload")


def test_a_build_that_succeeded_shows_the_log_of_its_build_step(driven: DrivenFarm) -> None:
    driven.finish(ask(driven.farm))
    assert b"".join(driven.farm.log(1)) == b"compiling\ndone\n"


def test_following_goes_from_the_live_log_to_the_stored_one_without_a_gap(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    driven.send()
    driven.start("1.fetch.1")
    leases = Leases(driven.settings)
    leases.show_log("1.fetch.1", 0, b"one\ntwo")
    chunks = driven.farm.log(build_id, follow=True)
    assert next(chunks) == b"one\ntwo"
    driven.succeed("1.fetch.1", b"one\ntwo\nthree\n")
    assert b"".join(chunks) == b"\nthree\n"
    leases.close()


def test_events_of_other_builds_do_not_make_a_follower_ask_for_its_log(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    driven.send()
    driven.start("1.fetch.1")
    leases = Leases(driven.settings)
    leases.show_log("1.fetch.1", 0, b"one\n")
    chunks = driven.farm.log(build_id, follow=True)
    assert next(chunks) == b"one\n"
    for _ in range(500):
        leases.publish({"build": build_id + 1, "step": None, "status": Status.RUNNING})
    driven.succeed("1.fetch.1", b"one\n")
    assert b"".join(chunks) == b""
    with redis.Redis.from_url(driven.settings.redis) as client:
        asked = client.info("commandstats")["cmdstat_getrange"]["calls"]
    assert asked < 250, "one for each that the time brings, and none for the others' events"
    leases.close()


def test_without_follow_a_running_log_is_shown_as_far_as_it_has_come(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    driven.send()
    driven.start("1.fetch.1")
    assert list(driven.farm.log(build_id)) == []


def test_an_attempt_that_left_no_log_says_why(driven: DrivenFarm) -> None:
    build_id = ask(driven.farm)
    driven.send()
    driven.farm.cancel(build_id)
    with pytest.raises(NotFound, match="left no log: cancelled by ann"):
        list(driven.farm.log(build_id, "fetch"))


# --- what was made ----------------------------------------------------------------------------------------------


def test_downloads_are_copies_of_every_file(driven: DrivenFarm, tmp_path: Path) -> None:
    driven.finish(ask(driven.farm))
    into = tmp_path / "results"
    paths = driven.farm.download(1, into)
    assert sorted(str(path.relative_to(into)) for path in paths) == [
        "build.log", "fetch.log", "hello-1-1.x86_64.rpm", "srpm.log", "upload.log",
    ]  # fmt: skip
    rpm = into / "hello-1-1.x86_64.rpm"
    assert rpm.read_bytes() == b"a package"
    rpm.write_bytes(b"edited")
    kept = [file.artifact for file in driven.farm.artifacts(1) if file.artifact.kind is ArtifactKind.RPM]
    assert driven.farm.read(kept[0]) == b"a package"


def test_a_download_never_replaces_something_else_unasked(driven: DrivenFarm, tmp_path: Path) -> None:
    driven.finish(ask(driven.farm))
    into = tmp_path / "results"
    driven.farm.download(1, into)
    driven.farm.download(1, into)  # the same content again is no loss
    (into / "srpm.log").write_bytes(b"mine")
    (into / "build.log").unlink()
    with pytest.raises(WrongState, match=r"srpm.log' exists with other content; remove it, or give --overwrite"):
        driven.farm.download(1, into)
    assert not (into / "build.log").exists()
    driven.farm.download(1, into, overwrite=True)
    assert (into / "srpm.log").read_bytes() == b"all is well\n"


def test_a_link_where_a_file_should_go_is_not_followed(driven: DrivenFarm, tmp_path: Path) -> None:
    driven.finish(ask(driven.farm))
    into = tmp_path / "results"
    into.mkdir()
    (tmp_path / "precious").write_bytes(b"all is well\n")
    (into / "srpm.log").symlink_to(tmp_path / "precious")
    with pytest.raises(WrongState):
        driven.farm.download(1, into)
    driven.farm.download(1, into, overwrite=True)
    assert not (into / "srpm.log").is_symlink()


def test_files_of_one_name_go_into_folders_by_step(driven: DrivenFarm, tmp_path: Path) -> None:
    ask(driven.farm, arches=["x86_64", "aarch64"])
    driven.to_build(1)
    driven.fail("1.build.x86_64.1", log=b"one")
    driven.fail("1.build.aarch64.1", log=b"two")
    driven.farm.download(1, tmp_path / "r")
    assert (tmp_path / "r/build.x86_64/build.log").read_bytes() == b"one"
    assert (tmp_path / "r/build.aarch64/build.log").read_bytes() == b"two"


def test_a_repository_says_how_to_install_from_it(farm: Farm) -> None:
    found = farm.repository("demo", "aarch64")
    assert found.baseurl.startswith("file:///")
    assert "demo/aarch64" in found.baseurl
    assert f"baseurl={found.baseurl}\nenabled=1" in found.repo_file
    assert found.install_command("hello; rm").endswith("install 'hello; rm'")
    with pytest.raises(UnknownArch):
        farm.repository("demo", "s390x")
    with pytest.raises(UnknownTarget):
        farm.repository("nope")


def publish(farm: Farm, tmp_path: Path, *names: str) -> None:
    """One version each."""
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.AARCH64)
    for package in names:
        path = make_rpm(tmp_path, package)
        given = RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)
        open_repositories(farm.settings).add(name, [given])


def test_a_rollback_counts_for_clients_and_for_later_builds_and_can_be_undone(
    driven: DrivenFarm, tmp_path: Path
) -> None:
    publish(driven.farm, tmp_path, "one", "two")
    done = driven.farm.rollback("demo", to=1, arch="aarch64")
    assert (done.path, done.arch, done.has_changed) == ("demo/aarch64/os", Arch.AARCH64, True)
    assert (done.before.number, done.before.packages) == (2, 2)
    assert (done.after.number, done.after.packages, done.after.is_current) == (3, 1, True)
    assert driven.store.heads() == {"demo/aarch64/os": Head(version=3, url=done.after.url)}
    again = driven.farm.rollback("demo", to=1, arch="aarch64")
    assert (again.has_changed, again.after.number) == (False, 3)
    back = driven.farm.rollback("demo", to=done.before.number, arch="aarch64")
    assert (back.after.number, back.after.packages) == (4, 2)
    versions = driven.farm.repository_versions("demo", "aarch64")
    assert [version.packages for version in versions] == [2, 1, 2, 1, 0]


def test_a_version_that_is_not_kept_and_a_kind_that_there_is_not_are_named(farm: Farm, tmp_path: Path) -> None:
    publish(farm, tmp_path, "one")
    with pytest.raises(NotFound, match="demo/aarch64/os has no version 7; kept are 1, 0"):
        farm.rollback("demo", to=7, arch="aarch64")
    with pytest.raises(BadRequest, match="'logs' is not a kind of repository; the kinds are os, debug, source"):
        farm.repository_versions("demo", kind="logs")
    with pytest.raises(UnknownTarget):
        farm.rollback("nope", to=1)
    assert [version.number for version in farm.repository_versions("demo", "x86_64", kind="source")] == [0]


def test_a_farm_says_whether_it_can_publish(farm: Farm) -> None:
    assert all(check.is_ok for check in farm.check_repositories())


def test_requests_to_a_farm_that_does_nothing(farm: Farm) -> None:
    assert farm.workers() == ()
    assert farm.queue_counts() == {}
    assert "demo" in farm.targets()
    ask(farm)
    assert farm.queue_counts() == {"source": (1, 0)}
