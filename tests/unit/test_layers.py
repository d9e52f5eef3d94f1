"""The layers of the code: the imports that a module may have, and the length that it may reach."""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("farm", "workers")
MAX_LINES = 400

#: The packages of the farm's library that workers may use. All others are the scheduler's side.
SHARED = {
    *("model", "errors", "wire", "queues", "config", "permissions", "process_log", "app", "git_folder"),
    *("broker", "artifacts", "repositories", "formats", "steps", "extensions"),
}
#: But not which scheduler leads, nor what an account's rules are made from.
NOT_SHARED = {"farm.broker.leader"}

#: farm's base modules, each with the modules of farm that it may use.
BASE = {
    "model": {"model"},
    "errors": {"model"},
    "wire": {"model", "errors", "steps"},
    "queues": {"model"},
    "config": {"model", "errors"},
    "app": {"broker"},
    "process_log": set(),
    "git_folder": {"errors"},
    "broker": {"model", "errors", "wire", "queues", "config", "steps", "broker"},
    "state": {"model", "errors", "state"},
    "extensions": {"config", "errors"},
    "steps": {"model", "errors", "queues", "state", "repositories", "extensions", "formats", "steps"},
    "formats": {"model", "errors", "extensions", "formats"},
    "artifacts": {"model", "errors", "config", "artifacts"},
    "repositories": {"model", "errors", "config", "formats", "repositories", "broker"},
    "targets": {"model", "errors", "config", "artifacts", "formats", "targets"},
    "service": {
        *("model", "errors", "wire", "config", "fitness", "git_folder", "service"),
        *("broker", "store", "artifacts", "repositories", "targets", "formats", "gc", "steps"),
    },
    "client": {"model", "errors", "config", "artifacts", "repositories", "gc", "service", "client"},
    "server": {"model", "errors", "config", "process_log", "repositories", "gc", "service", "server"},
}
#: The packages that may import those above the store and the broker.
ABOVE = {
    "service": {"service", "client", "cli", "server", "web"},
    "client": {"client", "cli", "web"},
    "server": {"server", "cli"},
}
CELERY = {
    "farm/app.py",
    "workers/agent/tasks.py",
    "workers/agent/denial.py",
    "workers/agent/consumer.py",
}
#: The hand-run tool is given a target's name where a farm's worker is given the target.
READS_TARGETS = {"workers/by_hand.py"}


def _modules(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


@cache
def _imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _of_farm(path: Path) -> set[str]:
    return {parts[1] for name in _imports(path) if (parts := name.split("."))[0] == "farm" and len(parts) > 1}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_model_uses_only_the_standard_library() -> None:
    for path in _modules("farm/model"):
        for name in _imports(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or name.startswith("farm.model."), f"{_name(path)} imports {name}"


@pytest.mark.parametrize("base", sorted(BASE))
def test_base_modules_import_only_modules_below_them(base: str) -> None:
    paths = list(_modules(f"farm/{base}")) or [ROOT / "farm" / f"{base}.py"]
    for path in paths:
        extra = _of_farm(path) - BASE[base]
        assert not extra, f"{_name(path)} imports farm.{extra}"


def test_farm_never_imports_workers() -> None:
    for path in _modules("farm"):
        assert not [name for name in _imports(path) if name.split(".")[0] == "workers"], _name(path)


def test_workers_never_reach_the_schedulers_side() -> None:
    for path in _modules("workers"):
        allowed = SHARED | ({"targets"} if _name(path) in READS_TARGETS else set())
        extra = _of_farm(path) - allowed
        assert not extra, f"{_name(path)} imports farm.{extra}"
        assert not [name for name in _imports(path) if name.startswith(tuple(NOT_SHARED))], _name(path)


def test_celery_is_imported_in_few_places() -> None:
    users = {
        _name(path) for path in _modules(*PACKAGES) if any(name.split(".")[0] == "celery" for name in _imports(path))
    }
    assert users == CELERY


def test_the_frameworks_of_the_server_are_imported_there_alone() -> None:
    """Their import takes longer than a command."""
    for path in _modules(*PACKAGES):
        used = {name.split(".")[0] for name in _imports(path)} & {"litestar", "uvicorn", "prometheus_client"}
        assert not used or _name(path).startswith("farm/server/"), _name(path)


def test_workers_start_processes_in_one_place() -> None:
    """Only workers.core.process uses plumbum, and only the modules that drive a process use workers.core.process."""
    for path in _modules("workers"):
        names = _imports(path)
        assert _name(path) == "workers/core/process.py" or not {name.split(".")[0] for name in names} & {"plumbum"}
        assert _name(path) in ("workers/core/run.py", "workers/core/attached.py") or not [
            name for name in names if name.startswith("workers.core.process.")
        ]


#: The folders of workers/ from the bottom up. None imports one that comes after it.
FLOORS = ("core", "isolation", "roots", "sources", "formats", "steps", "local", "agent")


def test_no_folder_of_the_workers_imports_one_above_it() -> None:
    for path in _modules("workers"):
        parts = path.relative_to(ROOT / "workers").parts
        if len(parts) == 1:
            continue
        above = set(FLOORS[FLOORS.index(parts[0]) + 1 :])
        upwards = {name for name in _imports(path) if name.startswith("workers.") and name.split(".")[1] in above}
        assert not upwards, f"{_name(path)} imports {upwards}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count: they hide a circle and do not break it."""
    modules = {_name(path).removesuffix(".py").replace("/", "."): path for path in _modules(*PACKAGES)}
    # An imported name is a module, or stands in one.
    needs = {
        module: {found for name in _imports(path) for found in (name, name.rpartition(".")[0]) if found in modules}
        for module, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_imports_tests_or_deploy() -> None:
    for path in _modules(*PACKAGES):
        assert not {name.split(".")[0] for name in _imports(path)} & {"tests", "deploy"}, _name(path)


def test_web_and_cli_never_import_each_other_and_nothing_below_imports_them() -> None:
    for path in _modules(*PACKAGES):
        faces = _of_farm(path) & {"web", "cli"}
        assert faces <= {path.relative_to(ROOT).parts[1]}, _name(path)


@pytest.mark.parametrize("package", sorted(ABOVE))
def test_the_service_and_the_client_are_used_from_above_alone(package: str) -> None:
    users = {
        path.relative_to(ROOT).parts[1]
        for path in _modules(*PACKAGES)
        if package in _of_farm(path) and _name(path) != "farm/__init__.py"
    }
    assert users <= ABOVE[package]


def test_modules_are_small() -> None:
    for path in _modules(*PACKAGES):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_LINES, f"{_name(path)} has {lines} lines; split it"


#: How many files outside of farm/steps and workers/steps may name a step type: the tool that runs one by hand.
STEP_TYPES_NAMED_AT_MOST = 1
#: How many files outside of formats may speak of RPM. Lower the number when it is reached.
RPM_NAMED_AT_MOST = 55
#: A step type's own module, its value, or its name as a text where a kind is looked at.
_STEP_TYPE = re.compile(
    r"farm\.steps\.(?:fetch|srpm|build|upload|logs)\b|\b(?:FETCH|SRPM|BUILD|UPLOAD|LOGS)\.name\b"
    r"|step_type\(\"|\.find\(\"|\.kind (?:==|!=|in) \(?\""
)
# `openapi.spec` is another specification.
_RPM = re.compile(r"(?<!openapi\.)\b(?:rpms?|srpm|nevra|rpmbuild|dnf|spec)\b", re.IGNORECASE)


def test_few_files_name_a_step_type() -> None:
    naming = [
        _name(path)
        for path in _modules(*PACKAGES)
        if path.relative_to(ROOT).parts[1] not in ("steps", "formats")
        and "migrations" not in path.parts
        and _STEP_TYPE.search(path.read_text())
    ]
    assert len(naming) <= STEP_TYPES_NAMED_AT_MOST, naming


def test_few_files_outside_of_formats_speak_of_rpm() -> None:
    outside = [
        _name(path)
        for path in _modules(*PACKAGES)
        if path.relative_to(ROOT).parts[1] != "formats" and _RPM.search(path.read_text())
    ]
    assert len(outside) <= RPM_NAMED_AT_MOST, outside
