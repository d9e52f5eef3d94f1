"""The meaning of a mock run, in cases where it depends on the command."""

import os
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from farm.errors import LeaseLost, RootTrouble
from farm.model.outcome import Outcome
from farm.model.target import Limits
from tests.waiting import SetLater
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.core.run import Completed
from workers.formats.rpm.mock.command import MockCall
from workers.formats.rpm.mock.exit_codes import Said
from workers.formats.rpm.mock.host import Isolation, MockHost
from workers.formats.rpm.mock.results import without_greeting
from workers.formats.rpm.mock.session import MockSession, Ran
from workers.isolation.outcomes import LimitsMet

_NOTHING = b"No matching package to install: 'foo'\n"


def _session(folder: Path, log: StepLog, stop: threading.Event | None = None) -> MockSession:
    context = StepContext(
        attempt="1.build.x86_64.1",
        workdir=folder,
        log=log,
        store=cast("Any", None),
        settings=cast("Any", None),
        limits=Limits(),
        stop=stop or threading.Event(),
        deadline=time.monotonic() + 60,
    )
    host = MockHost(program=Path("mock"), version="6.7", account=None, can_nspawn=True)
    call = MockCall(
        host=host,
        config=folder / "x.cfg",
        isolation=Isolation.NSPAWN,
        unique="1",
        results=folder / "left",
        root=folder / "root",
    )
    return MockSession(call, folder, context)


def _ran(code: int, said: Said, *, is_making_root: bool) -> Ran:
    return Ran(
        completed=Completed(code=code, signal=None, seconds=1.0),
        is_making_root=is_making_root,
        said=said,
        met=LimitsMet(),
    )


@pytest.mark.parametrize(("code", "said"), [(30, Said(root_log=_NOTHING)), (10, Said(build_log=b"error: x\n"))])
def test_a_root_of_the_target_that_cannot_be_made_is_never_the_packages_fault(
    tmp_path: Path, code: int, said: Said
) -> None:
    with StepLog(tmp_path / "log", limit_bytes=1000) as log, pytest.raises(RootTrouble, match="the target's root"):
        _session(tmp_path, log).judge(_ran(code, said, is_making_root=True))


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_copy_for_mock_ends_when_the_attempt_is_stopped(tmp_path: Path, is_folder: bool) -> None:
    path = tmp_path / "sources" / "large"
    path.parent.mkdir()
    with path.open("wb") as large:
        large.truncate(40 * 2**20)
    os.utime(path, (1, 1))
    stop = SetLater(3)
    with StepLog(tmp_path / "log", limit_bytes=1000) as log:
        session = _session(tmp_path, log, stop)
        session.given.mkdir()
        with pytest.raises(LeaseLost):
            session.give(path.parent if is_folder else path, "stopped")
        assert sum(found.stat().st_size for found in session.given.rglob("*large*")) < 10 * 2**20
        stop.left = 1000
        given = session.give(path.parent if is_folder else path, "whole")
    copied = given / "large" if is_folder else given
    assert (copied.stat().st_size, copied.stat().st_mtime, copied.stat().st_mode & 0o777) == (40 * 2**20, 1, 0o644)


def test_a_requirement_of_the_package_itself_is_its_own_fault(tmp_path: Path) -> None:
    with StepLog(tmp_path / "log", limit_bytes=1000) as log:
        verdict = _session(tmp_path, log).judge(_ran(30, Said(root_log=_NOTHING), is_making_root=False))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNRESOLVABLE, "nothing provides foo")


@pytest.mark.parametrize(
    ("code", "signal", "met", "tail", "words"),
    [
        (1, None, LimitsMet(memory_kills=1), b"", "used more memory than its limit of 16 GiB"),
        (None, 9, LimitsMet(memory_kills=1), b"", "used more memory than its limit of 16 GiB"),
        (1, None, LimitsMet(forks_refused=1), b"", "wanted more processes and threads than its limit of 4096"),
        (1, None, LimitsMet(), b"sh: File size limit exceeded\n", "wrote a file larger than its disk limit of 64 GiB"),
    ],
)
def test_a_run_that_met_a_limit_is_over_it_whatever_mocks_code(
    tmp_path: Path, code: int | None, signal: int | None, met: LimitsMet, tail: bytes, words: str
) -> None:
    completed = Completed(code=code, signal=signal, seconds=1.0, tail=tail)
    ran = Ran(completed=completed, said=Said(build_log=tail), met=met)
    with StepLog(tmp_path / "log", limit_bytes=1000) as log:
        verdict = _session(tmp_path, log).judge(ran)
    assert verdict.outcome is Outcome.OVER_LIMIT
    assert (verdict.reason or "").startswith(words)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"Mock Version: 6.7\n", b""),
        (b"Mock Version: 6.7", b""),
        (b"Mock Version: 6.7\nerror: x\n", b"error: x\n"),
        (b"error: x\nMock Version: 6.7\n", b"error: x\nMock Version: 6.7\n"),
        (b"", b""),
    ],
)
def test_mocks_greeting_is_nothing_that_rpmbuild_said(log: bytes, words: bytes) -> None:
    assert without_greeting(log) == words
