"""The modules that a command must not import: each costs a person tens of milliseconds for every command typed.

The figure `status_over_bare` of `make bench` measures the time. This test names the modules, and measures none.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driven_farm import DrivenFarm, driven_farm

#: No command that only looks needs one of them.
NEVER = {
    *("alembic", "celery", "createrepo_c", "flower", "httpx", "kombu", "plumbum", "psycopg", "pulp_glue", "pydantic"),
    *("requests", "structlog", "sqlalchemy.dialects.postgresql", "litestar", "uvicorn"),
    *("farm.gc", "farm.scheduler", "farm.server", "farm.up", "farm.repositories.pulp", "farm.store.migrate"),
}
DATABASE, BROKER, TERMINAL, COMMANDS = {"sqlalchemy"}, {"redis"}, {"rich"}, {"typer"}
_RUN = "from farm.cli.main import app; app({words!r}, prog_name='farm', standalone_mode=False)"


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path_factory.mktemp("farm")) as driven:
        driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
        yield driven


def _imported(driven: DrivenFarm, code: str) -> set[str]:
    """The names of the modules, and of the packages around them, that a process with this code has imported."""
    whole = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint('loaded', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", whole],
        env={"PATH": "/usr/bin:/bin", **driven.env},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "loaded", done.stdout
    return set(last)


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import farm", NEVER | DATABASE | BROKER | TERMINAL | COMMANDS | {"farm.client", "farm.service"}),
        ("import farm.cli.main", NEVER | DATABASE | BROKER | TERMINAL | {"farm.client", "farm.service"}),
        ("import farm; farm.Farm.connect().builds()", NEVER | BROKER | TERMINAL | COMMANDS),
        ("import farm.client.remote, farm.cli.audit, farm.service.audit", NEVER | DATABASE | BROKER | TERMINAL),
        (_RUN.format(words=["config", "--json"]), NEVER | DATABASE | BROKER | TERMINAL),
        (_RUN.format(words=["list", "--json"]), NEVER | BROKER | TERMINAL),
        (_RUN.format(words=["list"]), NEVER | BROKER),
        (_RUN.format(words=["status", "1", "--json"]), NEVER | BROKER | TERMINAL),
        (_RUN.format(words=["status"]), NEVER),
    ],
    ids=["farm", "main", "builds", "remote", "config --json", "list --json", "list", "status 1 --json", "status"],
)
def test_a_command_imports_only_what_it_needs(driven: DrivenFarm, code: str, unwanted: set[str]) -> None:
    assert _imported(driven, code) & unwanted == set()


def test_farm_try_starts_without_what_most_work_trees_do_not_need(driven: DrivenFarm) -> None:
    """The HTTP client alone takes a third of the time until the first step begins."""
    unwanted = {"httpx", "httpcore", "createrepo_c", "celery", "kombu", "rich", "typer", "sqlalchemy", "structlog"}
    assert _imported(driven, "import workers.local.trial, workers.local.__main__") & unwanted == set()


def test_the_modules_that_are_looked_for_are_imported_elsewhere(driven: DrivenFarm) -> None:
    """A name in the list that no module has would be a check that cannot fail."""
    for name in sorted(NEVER - {"farm.gc", "farm.up"}):
        assert name in _imported(driven, f"import {name}"), name
