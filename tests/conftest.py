"""Fixtures for all kinds of tests: no settings of the caller, databases, the demo distribution, and a Pulp."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.store.store import Store
from tests import distribution
from tests.databases import NoPostgresql, cluster, new_database, sqlite_template
from tests.pulp_server import QUICK_PASSWORDS, local_pulp

# A shell starts `make test &` of a script with SIGINT ignored, and children inherit that: Python would then install no
# handler, here and in each command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Longest first, so that none is begun last: each is one process's for as long as it takes.
_FIRST = (
    *("pulp", "pulp-repositories", "test_siege", "test_killed_up", "test_version_before", "test_killed_workers"),
    *(
        "test_fetch_bombs",
        "test_cancel_states",
        "test_pulp_access",
        "test_pulp_faults_disk",
        "test_up",
        "test_disk_watch",
    ),
    *(
        "test_shared_cache",
        "test_installations",
        "test_standby",
        "test_foreign_arch",
        "test_toy_format",
        "test_toy_step",
    ),
    *("test_retry", "test_held_hosts", "test_bad_load", "test_fetch_sources", "test_fetch_git", "test_build_engine"),
    *("test_cli", "test_layers", "test_imports", "test_prose", "test_mock_engine", "test_store_interleavings"),
)


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist would begin with the groups of most tests: a siege, which is two of them, would be the last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


# Before pytest-xdist's own hook, which reads the markers: otherwise each test is a group of its own.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist each file stays in one process, for the sake of what its tests share; files with a test that
    asks for the fixture `pulp` are in two, so that two Pulps are made and neither has all the work."""
    with_pulp = {item.path for item in items if _asks_for_pulp(item)}
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = item.path.stem
        if item.path in with_pulp:
            name = "pulp-repositories" if name.startswith("test_repository") else "pulp"
        item.add_marker(pytest.mark.xdist_group(name))
        groups.setdefault(name, []).append(item)
    order = sorted(groups, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    items[:] = [item for name in order for item in groups[name]]


def _asks_for_pulp(item: pytest.Item) -> bool:
    """By an argument, or by the parameter `pulp` of a suite for both back ends."""
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "pulp" in item.fixturenames or parameters.get("backend") == "pulp"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings of the person who runs it, and none leaves the process in another folder."""
    for key in [key for key in os.environ if key.startswith("FARM_") and not key.startswith("FARM_TEST_")]:
        monkeypatch.delenv(key)
    before = Path.cwd()
    yield
    assert Path.cwd() == before, "a test left the process in another folder"


@pytest.fixture(scope="session")
def demo_distribution() -> Path:
    """The folder with <arch>/repodata. Skips where it can neither be found nor made; fails instead where CI is set."""
    try:
        return distribution.demo_distribution()
    except RuntimeError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pulp() -> Iterator[LocalPulp]:
    """One real Pulp with two workers for all tests that ask for it; each uses names of its own, and leaves it running.

    Skips where none can be made; fails instead where CI is set.
    """
    with ExitStack() as stack:
        try:
            started = stack.enter_context(local_pulp(settings=QUICK_PASSWORDS))
        except PulpError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield started


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A server for all tests that ask for it: FARM_TEST_POSTGRESQL, or one made for the session."""
    if given := os.environ.get("FARM_TEST_POSTGRESQL"):
        yield given
        return
    with ExitStack() as stack:
        try:
            started = stack.enter_context(cluster("all"))
        except NoPostgresql as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        yield started.url


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> Iterator[str]:
    """The name of a database with the current schema."""
    with new_database(postgresql) as url:
        Store.open(url, create=True).close()
        yield str(sa.make_url(url).database)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own, with the current schema: a copy, since migrating takes longer than most tests."""
    if request.param == "sqlite":
        (tmp_path / "farm.db").write_bytes(sqlite_template())
        yield f"sqlite:///{tmp_path / 'farm.db'}"
        return
    template = request.getfixturevalue("postgresql_template")
    with new_database(request.getfixturevalue("postgresql"), template=template) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with new_database(request.getfixturevalue("postgresql")) as url:
        yield url


@pytest.fixture
def leases(settings: Settings) -> Iterator[Leases]:
    """On the Redis of `settings`, a fixture of the test's file."""
    leases = Leases(settings)
    yield leases
    leases.close()


@pytest.fixture
def control(settings: Settings) -> Iterator[Control]:
    """Likewise."""
    control = Control(settings)
    yield control
    control.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own folders are root's."""
    with tempfile.TemporaryDirectory(prefix="farm-try-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
