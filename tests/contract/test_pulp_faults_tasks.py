"""A real Pulp's tasks that die, are cancelled or do not end, while a publisher waits for them.

A task is held by a lock on a row that it has to write, so it is hit while it runs, whatever the machine's speed.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.pulp.local import LocalPulp
from farm.errors import LeaseLost, RepositoryTrouble
from farm.repositories.base import RepositoryPackage
from tests.promises import Stopwatch
from tests.pulp_watch import NAME, Place, packages, place
from tests.waiting import until

WITHIN_S = 60.0
ADDING, PUBLISHING = "add_and_remove", "publish"


@pytest.fixture(scope="module")
def farm(pulp: LocalPulp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(pulp, tmp_path_factory.mktemp("farm")) as made:
        yield made


@pytest.fixture(scope="module")
def published(farm: Place, tmp_path_factory: pytest.TempPathFactory) -> list[RepositoryPackage]:
    """The content of the repository; each test adds to it."""
    first = packages(tmp_path_factory.mktemp("first"), "first")
    farm.backend.add(NAME, first)
    return first


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def running(farm: Place, task: str) -> list[str]:
    """The processes that run such a task, as `pid@host`."""
    return farm.sql(
        "SELECT a.name FROM core_task t JOIN core_appstatus a ON a.pulp_id = t.app_lock_id "
        "WHERE t.state = 'running' AND t.name LIKE %s",
        f"%{task}",
    )


@contextmanager
def publication_held(farm: Place) -> Iterator[None]:
    """No publication of a version that is asked for during the block can be made."""
    asked, over, locked = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with farm.database() as client:
            asked.wait(WITHIN_S)
            client.execute(
                "SELECT 1 FROM core_repositoryversion v JOIN core_repository r ON r.pulp_id = v.repository_id "
                "WHERE r.name = %s FOR UPDATE OF v",
                (farm.repository,),
            )
            locked.set()
            over.wait(WITHIN_S)

    def ask() -> None:
        asked.set()
        assert locked.wait(WITHIN_S)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    farm.proxy.when_it_came("POST", "/publications/", ask)
    try:
        yield
    finally:
        asked.set()
        over.set()
        thread.join()


def forget_worker(farm: Place, process: str) -> None:
    """Does the same as Pulp's workers at every hundredth heartbeat for one that was silent for WORKER_TTL (pulpcore
    3.123).

    With Pulp's own settings that is once in a quarter of an hour, so the farm waits that long for a dead worker.
    """
    unlock = (
        "UPDATE core_task SET app_lock_id = NULL FROM core_appstatus a WHERE a.pulp_id = app_lock_id AND a.name = %s"
    )
    farm.sql(unlock, process)
    farm.sql("DELETE FROM core_appstatus WHERE name = %s", process)
    farm.sql("SELECT pg_notify('pulp_worker_wakeup', '')")


@pytest.mark.parametrize("task", [ADDING, PUBLISHING])
def test_a_worker_of_pulp_s_killed_while_it_runs_our_task_is_not_noticed(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path, pool: ThreadPoolExecutor, task: str
) -> None:
    given, versions = packages(tmp_path, f"{task}x", 2), farm.versions()
    with farm.held() if task == ADDING else publication_held(farm):
        adding = pool.submit(farm.backend.add, NAME, given)
        until(lambda: running(farm, task) or adding.done(), "the task does not run")
        (process,) = running(farm, task)
        (worker,) = [name for name, pid in farm.pulp.processes.items() if str(pid) == process.partition("@")[0]]
        farm.pulp.kill(worker)
    try:
        forget_worker(farm, process)
        number = adding.result(timeout=WITHIN_S)
    finally:
        farm.pulp.start_one(worker)
    published += given
    farm.assert_well(published)
    assert farm.versions() == [*versions, number]


def test_a_task_that_someone_cancels_is_asked_for_again(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    given = packages(tmp_path, "cancelled", 2)
    with farm.held():
        adding = pool.submit(farm.backend.add, NAME, given)
        cancel(farm, adding)
    adding.result(timeout=WITHIN_S)
    published += given
    farm.assert_well(published)


def cancel(farm: Place, adding: "Future[int]") -> None:
    until(lambda: running(farm, ADDING) or adding.done(), "the task does not run")
    (task,) = farm.sql("SELECT pulp_id::text FROM core_task WHERE state = 'running' AND name LIKE %s", f"%{ADDING}")
    answer = httpx.patch(
        f"{farm.pulp.url}/pulp/api/v3/tasks/{task}/",
        json={"state": "canceled"},
        auth=(farm.pulp.username, farm.pulp.password),
        timeout=30,
    )
    answer.raise_for_status()


def test_a_task_that_does_not_end_is_cancelled_once_and_said_in_words(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path
) -> None:
    given, backend = packages(tmp_path, "slow", 2), farm.again(pulp_task_s=1.0)
    backend.current(NAME)
    began = time.monotonic()
    with farm.held():
        with pytest.raises(RepositoryTrouble, match=r"modify was still (running|waiting) after 1 s, and was cancelled"):
            backend.add(NAME, given)
        assert time.monotonic() - began < 30
        until(lambda: not farm.unfinished(), farm.unfinished().__str__)
    farm.backend.add(NAME, given)
    published += given
    farm.assert_well(published)


@pytest.mark.parametrize("task", [ADDING, PUBLISHING])
def test_a_stop_while_a_task_runs_ends_the_call_and_leaves_no_task(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path, pool: ThreadPoolExecutor, task: str
) -> None:
    given, stop = packages(tmp_path, f"stop{task}x", 2), threading.Event()
    with farm.held() if task == ADDING else publication_held(farm):
        adding = pool.submit(farm.backend.add, NAME, given, stop=stop)
        until(lambda: running(farm, task) or adding.done(), "the task does not run")
        stop.set()
        watch = Stopwatch()
        with pytest.raises(LeaseLost):
            adding.result(timeout=WITHIN_S)
        assert watch.within(2)
    farm.backend.add(NAME, given)
    published += given
    farm.assert_well(published)
