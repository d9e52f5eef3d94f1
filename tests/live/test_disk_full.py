"""A worker whose disk fills up says so, whatever it was writing at that moment."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plumbum import local

from farm.config import Settings
from farm.errors import DiskFull
from farm.model.work import AnyWork
from tests.unit.test_mock_session import _ran, _session
from tests.unit.test_runner import WORK
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.formats.rpm.mock.exit_codes import Said
from workers.steps import registry, runner

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """With a disk of one MiB."""
    local["mount"]("-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path)
    yield Settings(data=tmp_path)
    local["umount"](tmp_path)


def test_a_disk_that_the_log_fills(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no space to keep the log, and none to say so in it."""

    def flood(_: AnyWork, context: StepContext) -> Any:
        while True:
            context.log.write(b"more of the same\n" * 1000)

    monkeypatch.setitem(registry._RUNS, "build", flood)
    with pytest.raises(DiskFull, match=f"the disk of {settings.data} is full"):
        runner.run_step(WORK, settings)
    assert list(settings.work.iterdir()) == []


def test_a_disk_that_is_full_before_the_step_starts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(settings.data)
    (settings.data / "ballast").write_bytes(bytes(disk.f_bavail * disk.f_frsize))

    def write(_: AnyWork, context: StepContext) -> Any:
        (context.workdir / "file").write_bytes(bytes(10_000))

    monkeypatch.setitem(registry._RUNS, "build", write)
    with pytest.raises(DiskFull):
        runner.run_step(WORK, settings)


def test_a_disk_that_a_result_fills(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is kept: there is space for it again once the result is gone."""

    def write(_: AnyWork, context: StepContext) -> Any:
        try:
            (context.workdir / "result").write_bytes(bytes(2**21))
        finally:
            (context.workdir / "result").unlink()

    monkeypatch.setitem(registry._RUNS, "build", write)
    with pytest.raises(DiskFull) as caught:
        runner.run_step(WORK, settings)
    assert [log.name for log in caught.value.artifacts] == ["build.x86_64.log"]


def test_a_failure_of_mock_on_a_full_disk_is_the_hosts(settings: Settings, tmp_path: Path) -> None:
    said = Said(build_log=b"error: Bad exit status from /var/tmp/rpm-tmp.x (%build)\n")
    with StepLog(tmp_path / "log", limit_bytes=1000) as log:
        session = _session(settings.data, log)
        with pytest.raises(DiskFull, match="nearly full"):
            session.judge(_ran(10, said, is_making_root=False))
