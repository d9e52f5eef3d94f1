"""A short siege on each database, with wounds of every kind; `make siege` lays a longer one."""

import os
from pathlib import Path

import pytest

from deploy.pulp.errors import PulpError
from deploy.pulp.postgresql import binaries
from tests.siege.shape import DatabaseKind, short_siege
from tests.siege.siege import lay
from tests.siege.words import shown

pytestmark = [pytest.mark.live, pytest.mark.timeout(420)]

WOUNDS = {
    DatabaseKind.SQLITE: (
        "kill_child",
        "kill_leader",
        "deliver_twice",
        "lose_redis",
        "kill_group",
        "freeze_store",
        "stop_child",
        "delete_lease",
        "fill_scratch",
    ),
    DatabaseKind.POSTGRESQL: (
        "kill_main",
        "kill_database",
        "deliver_twice",
        "cut_host",
        "empty_redis",
        "stop_leader",
        "kill_child",
        "step_clock",
        "kill_redis",
    ),
}


@pytest.mark.parametrize(("database", "seed"), [(DatabaseKind.SQLITE, 41), (DatabaseKind.POSTGRESQL, 42)])
def test_a_farm_under_siege_loses_nothing_doubles_nothing_and_leaves_nothing(
    database: DatabaseKind, seed: int, demo_distribution: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a siege needs root")
    _require(database)
    report = lay(short_siege(seed, database, WOUNDS[database]), demo_distribution, print)
    print(shown(report))
    assert not report.broken, capsys.readouterr().out
    assert report.owed == []
    assert report.outcomes["succeeded"] > 1


def _require(database: DatabaseKind) -> None:
    """Skips where there is no PostgreSQL; fails instead where CI is set."""
    if database is DatabaseKind.SQLITE:
        return
    try:
        binaries()
    except PulpError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
