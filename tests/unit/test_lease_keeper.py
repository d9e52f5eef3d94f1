"""A lease is kept while its step runs, its loss stops the step, and nothing else does."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from farm.artifacts.directory import DirectoryStore
from farm.broker.leases import LIVE_LOG_BYTES, Leases, Touch
from farm.config import Settings
from farm.model.target import Limits
from tests.waiting import until
from workers.agent.lease import LeaseKeeper
from workers.core.context import StepContext
from workers.core.log import StepLog

_SOON_S = 0.002


@dataclass
class Recorder:
    """Answers as `Leases` would, and records the calls. `held` is called at each renewal."""

    held: Callable[[], bool] = lambda: True
    missing: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    renew_every_s: float = 5.0
    touched: list[tuple[str, str]] = field(default_factory=list)
    shown: bytes = b""

    def wait(self, label: str, *, timeout_s: float) -> bool:
        time.sleep(min(timeout_s, _SOON_S))
        return False

    def touch(self, label: str, token: str) -> Touch:
        self.touched.append((label, token))
        if self.missing:
            return Touch.MISSING
        return Touch.HELD if self.held() else Touch.GONE

    def ask_back(self, label: str, token: str, worker: str) -> None:
        self.asked.append((label, token, worker))

    def show_log(self, label: str, offset: int, data: bytes) -> None:
        assert offset == len(self.shown)
        self.shown += data


def keeper(recorder: Recorder) -> LeaseKeeper:
    return LeaseKeeper(cast("Leases", recorder), "1.build.x86_64.1", "token", worker="build@one", every_s=_SOON_S)


def opened() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # it was what the folder was listed with
            found.add(str(link.readlink()))
    return found


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StepContext]:
    settings = Settings(data=tmp_path / "data")
    with StepLog(tmp_path / "log", limit_bytes=2 * LIVE_LOG_BYTES) as log:
        yield StepContext(
            attempt="1.build.x86_64.1",
            workdir=tmp_path,
            log=log,
            store=DirectoryStore(settings.artifacts),
            settings=settings,
            limits=Limits(),
            deadline=time.monotonic() + 60,
        )


def test_the_lease_is_touched_until_the_step_ends() -> None:
    recorder = Recorder()
    with keeper(recorder) as kept:
        until(lambda: len(recorder.touched) > 3, "the lease to be touched")
        assert not kept.stop.is_set()
    assert set(recorder.touched) == {("1.build.x86_64.1", "token")}
    until(
        lambda: not [thread for thread in threading.enumerate() if thread.name == "lease 1.build.x86_64.1"],
        "its thread to end",
    )


def test_a_lost_lease_stops_the_step_and_is_not_asked_for_again() -> None:
    recorder = Recorder(held=lambda: False)
    with keeper(recorder) as kept:
        assert kept.stop.wait(10)
    assert len(recorder.touched) == 1


def test_a_broker_that_is_away_stops_nothing() -> None:
    recorder = Recorder()

    def away() -> bool:
        if len(recorder.touched) < 5:
            raise redis.ConnectionError("away")
        return True

    recorder.held = away
    with keeper(recorder) as kept:
        until(lambda: len(recorder.touched) > 6, "the lease to be touched")
        assert not kept.stop.is_set()


def test_a_lease_that_redis_forgot_is_asked_for_and_stops_nothing() -> None:
    recorder = Recorder(missing=True)
    with keeper(recorder) as kept:
        until(lambda: recorder.asked, "the lease to be asked for")
        assert recorder.asked[0] == ("1.build.x86_64.1", "token", "build@one")
        recorder.missing = False
        until(lambda: len(recorder.touched) > 3, "the lease to be touched")
        assert not kept.stop.is_set()


def test_a_broker_that_comes_back_without_the_lease_stops_the_step() -> None:
    answers: Iterator[Any] = iter([redis.TimeoutError("away"), True, redis.ConnectionError("away"), False])

    def held() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    with keeper(Recorder(held=held)) as kept:
        assert kept.stop.wait(10)


def test_the_log_is_shown_as_it_grows_each_byte_once(context: StepContext) -> None:
    recorder = Recorder()
    with keeper(recorder) as kept, kept.watch(context):
        for line in (b"first\n", b"second \xff\n"):
            context.log.write(line)
            until(lambda line=line: recorder.shown.endswith(line), "the line")
    assert recorder.shown == b"first\nsecond \xff\n"


def test_no_more_of_a_log_is_shown_than_is_kept(context: StepContext) -> None:
    recorder = Recorder()
    context.log.write(b"x" * (LIVE_LOG_BYTES + 1000))
    with keeper(recorder) as kept, kept.watch(context):
        until(lambda: recorder.shown, "the log to be shown")
        before = len(recorder.touched)
        until(lambda: len(recorder.touched) > before + 2, "the lease to be touched")
    assert len(recorder.shown) == LIVE_LOG_BYTES


@pytest.mark.parametrize("instead", ["nothing", "a folder"])
def test_a_log_that_cannot_be_read_costs_no_lease(context: StepContext, instead: str) -> None:
    recorder = Recorder()
    with keeper(recorder) as kept:
        context.log.path.unlink()
        if instead == "a folder":
            context.log.path.mkdir()
        with kept.watch(context):
            until(lambda: len(recorder.touched) > 3, "the lease to be touched")
        assert not kept.stop.is_set()


def test_the_end_of_a_log_is_shown_although_its_folder_is_gone_by_then(context: StepContext) -> None:
    """A stopped attempt gets no report, so only the part of its log that was shown is kept."""
    recorder = Recorder(held=lambda: False)
    with keeper(recorder) as kept:
        with kept.watch(context):
            assert kept.stop.wait(10)
            context.log.write(b"killed\n")
        context.log.close()
        context.log.path.unlink()
        assert f"{context.log.path} (deleted)" not in opened(), "NFS would keep its folder"
    until(lambda: recorder.shown == b"killed\n", "the end of the log")


def test_a_line_is_shown_long_before_the_lease_is_renewed(context: StepContext) -> None:
    class Slow(Recorder):
        def wait(self, label: str, *, timeout_s: float) -> bool:
            is_over.wait(60)
            return False

    is_over, recorder = threading.Event(), Slow()
    with keeper(recorder) as one, one.watch(context):
        context.log.write(b"a line\n")
        until(lambda: recorder.shown == b"a line\n", "the line to be shown")
        is_over.set()
