"""Locks on files: the kinds that exclude each other, and the end of a wait."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.errors import LeaseLost, RootTrouble, Trouble
from workers.core import locks
from workers.core.locks import LockKind, locked, until

WITHIN_S = 60


def at_once() -> None:
    raise TimeoutError


def is_free(path: Path, kind: LockKind) -> bool:
    try:
        with locked(path, kind, at_once):
            return True
    except TimeoutError:
        return False


def test_shared_locks_exclude_exclusive_ones_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, LockKind.SHARED, at_once):
        assert (is_free(path, LockKind.SHARED), is_free(path, LockKind.EXCLUSIVE)) == (True, False)
    with locked(path, LockKind.EXCLUSIVE, at_once):
        assert (is_free(path, LockKind.SHARED), is_free(path, LockKind.EXCLUSIVE)) == (False, False)
    assert is_free(path, LockKind.EXCLUSIVE)


def test_the_kind_of_a_lock_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, LockKind.EXCLUSIVE, at_once) as descriptor:
        locks.lock(descriptor, LockKind.SHARED, at_once)
        assert is_free(path, LockKind.SHARED)


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path, stop, waits = tmp_path / "lock", threading.Event(), threading.Event()
    until_stopped = until(stop, "stopped")

    def pause() -> None:
        waits.set()
        until_stopped()

    def take() -> None:
        with locked(path, LockKind.EXCLUSIVE, pause):
            pass

    with ThreadPoolExecutor(1) as pool:
        with locked(path, LockKind.EXCLUSIVE, at_once):
            taken = pool.submit(take)
            assert waits.wait(WITHIN_S)
            assert not taken.done()
        taken.result(WITHIN_S)


def test_a_wait_ends_when_its_attempt_is_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with locked(tmp_path / "lock", LockKind.EXCLUSIVE, at_once), pytest.raises(LeaseLost, match="for the test"):  # noqa: SIM117
        with locked(tmp_path / "lock", LockKind.SHARED, until(stop, "stopped for the test")):
            pass


@pytest.mark.parametrize("trouble", [Trouble, RootTrouble])
def test_a_file_that_cannot_be_locked_is_trouble(trouble: type[Trouble], tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH)
    with pytest.raises(trouble, match="a lock cannot be had"):
        locks.lock(descriptor, LockKind.SHARED, at_once, trouble=trouble)
    os.close(descriptor)
