"""The `--json` documents, pinned: a change here is a change of format for every script out there."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from farm import wire
from farm.broker.leases import Leases
from farm.cli.main import app
from farm.model.arch import Arch
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.rpms import make_rpm, sha256

TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
SHA256 = re.compile("[0-9a-f]{64}")


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenFarm]:
    """Build 1 failed, build 2 is ready."""
    with driven_farm(tmp_path_factory.mktemp("f")) as driven:
        driven.farm.enqueue(
            git="https://me:secret@example.org/hello.git", ref="v1", target="demo", arches=["x86_64"], with_=["x"],
            defines=[("dist", ".el9")], timeout_s=60, limits={"memory_bytes": 2**33}, priority=2,
        )  # fmt: skip
        driven.to_build(1)
        driven.fail("1.build.x86_64.1", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \x1b")
        driven.farm.enqueue(git="https://example.org/b.git", target="demo", arches=["x86_64"])
        yield driven


def document(driven: DrivenFarm, *words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*words, "--json"], env=driven.env)
    assert result.exit_code == code, result.output
    assert result.stdout.isascii()
    loaded: dict[str, Any] = json.loads(result.stdout)
    assert loaded.pop("format") == 1
    return loaded


def shaped(value: Any) -> Any:
    """With what differs from run to run replaced by its kind."""
    if isinstance(value, dict):
        return {key: shaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shaped(one) for one in value]
    if isinstance(value, str):
        return "TIME" if TIME.fullmatch(value) else "SHA256" if SHA256.fullmatch(value) else value
    return value


def attempt(label: str, **more: Any) -> dict[str, Any]:
    number = int(label.rpartition(".")[2])
    plain: dict[str, Any] = {
        "label": label,
        "number": number,
        "status": "finished",
        "outcome": "succeeded",
        "reason": None,
        "excerpt": None,
        "worker": "build@one",
        "dispatched_at": "TIME",
        "started_at": "TIME",
        "finished_at": "TIME",
        "phases": [],
        "peak_memory_bytes": None,
        "artifacts": [log(label.split(".")[1], 12)],
    }
    return plain | more


def log(step: str, size: int) -> dict[str, Any]:
    return {"name": f"{step}.log", "kind": "log", "sha256": "SHA256", "size_bytes": size, "nevra": None}


def step(name: str, arch: str | None, attempts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    plain = {"step": name, "arch": arch, "status": "finished", "outcome": "succeeded", "reason": None}
    return plain | {"waits_for": None, "counts": True, "attempts": attempts} | more


REASON = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \x1b"
FAILED = {"outcome": "failed", "reason": REASON}
BUILD = {
    "id": 1,
    "batch": 1,
    "project": "main",
    "package": "hello",
    "nevra": "hello-1-1.src",
    "commit": "c0ffee",
    "source": {
        "kind": "git",
        "url": "https://***@example.org/hello.git",
        "ref": "v1",
        "subdir": None,
        "spec": None,
        "sha256": None,
        "filename": None,
    },
    "target": "demo",
    "target_sha256": "SHA256",
    "arches": ["x86_64"],
    "options": {
        "with": ["x"],
        "without": [],
        "defines": [{"name": "dist", "value": ".el9"}],
        "timeout_s": 60,
        "limits": {"memory_bytes": 2**33},
    },
    "priority": 2,
    "owner": "ann",
    "status": "finished",
    "outcome": "failed",
    "reason": f"build x86_64: {REASON}",
    "created_at": "TIME",
    "finished_at": "TIME",
    "steps": [
        step("fetch", None, [attempt("1.fetch.1")]),
        step("srpm", None, [attempt("1.srpm.1")]),
        step(
            "build",
            "x86_64",
            [
                attempt(
                    "1.build.x86_64.1",
                    **FAILED,
                    excerpt="cc -c a.c\nmake: *** [all] Error 2\n",
                    artifacts=[log("build", 34)],
                )
            ],
            **FAILED,
        ),
        step("upload", "x86_64", [], outcome="cancelled", reason="build x86_64 failed"),
    ],
    "warnings": [],
    "replaces": [],
    "replaced": [],
}


def test_a_build(driven: DrivenFarm) -> None:
    limits = {"wall_s": {"value": 60, "target": 1800}, "memory_bytes": {"value": 2**33, "target": 2**32}}
    assert shaped(document(driven, "status", "1")) == {"build": BUILD, "limits": limits}


def test_lists_have_builds_without_attempts(driven: DrivenFarm) -> None:
    brief = {**BUILD, "steps": [{**one, "attempts": []} for one in BUILD["steps"]]}  # type: ignore[attr-defined]
    assert shaped(document(driven, "list", "--outcome", "failed")) == {"builds": [brief]}
    batch = shaped(document(driven, "status", "b1"))
    assert batch == {"batch": {"id": 1, "owner": "ann", "created_at": "TIME", "builds": [brief]}}


def test_the_farm(driven: DrivenFarm) -> None:
    facts = worker_facts("source@one")
    leases = Leases(driven.settings)
    leases.announce(replace(facts, engines=("native",)))
    worker = {
        "name": "source@one",
        "host": "one",
        "queues": ["source"],
        "slots": 2,
        "arches": ["x86_64"],
        "engines": ["native"],
        "started_at": "TIME",
        "version": "1",
        "cpus": 0,
        "memory_bytes": 0,
        "disk_free_bytes": 0,
        "unfit": None,
        "speaks": wire.VERSION,
        "hold": None,
        "running": [],
    }
    assert shaped(document(driven, "workers")) == {"workers": [worker], "hosts": []}
    farm = shaped(document(driven, "status"))
    leases.retire("source@one")
    leases.close()
    assert (farm["is_running"], farm["workers"]) == (True, [worker])
    assert farm["queues"] == [{"name": "source", "slots": 2, "ready": 1, "busy": 0}]
    assert [[build["id"] for build in farm[key]] for key in ("going_on", "finished")] == [[2], [1]]
    assert list(farm) == ["is_running", "workers", "queues", "going_on", "finished"]


def test_artifacts(driven: DrivenFarm, tmp_path: Path) -> None:
    fetch = {"step": "fetch", "arch": None, "attempt": "1.fetch.1", **log("fetch", 12)}
    listed = shaped(document(driven, "artifacts", "1"))
    assert (listed["build"], listed["artifacts"][0], list(listed)) == (1, fetch, ["build", "artifacts"])
    downloaded = document(driven, "artifacts", "1", "--download", str(tmp_path))["downloaded"]
    assert downloaded == [str(tmp_path / name) for name in ("fetch.log", "srpm.log", "build.log")]


def test_a_repository(driven: DrivenFarm) -> None:
    found = document(driven, "repo", "demo", "--arch", "x86_64")["repository"]
    keys = ["project", "target", "arch", "version", "baseurl", "debug_url", "source_url", "repo_file"]
    assert (list(found), found["target"], found["arch"], found["version"]) == (keys, "demo", "x86_64", 0)


def test_versions_of_a_repository_rolling_back_and_checking(driven: DrivenFarm, tmp_path: Path) -> None:
    backend = open_repositories(driven.settings)
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.AARCH64)
    for package in ("one", "two"):
        path = make_rpm(tmp_path, package)
        backend.add(name, [RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)])
    listed = document(driven, "repo", "versions", "demo", "--arch", "aarch64")
    assert (listed["repository"], [one["version"] for one in listed["versions"]]) == ("demo/aarch64/os", [2, 1, 0])
    keys = ["version", "published_at", "packages", "url", "is_current"]
    assert (list(listed["versions"][0]), listed["versions"][0]["is_current"]) == (keys, True)
    done = document(driven, "repo", "rollback", "demo", "--arch", "aarch64", "--to", "1", "--yes")["rollback"]
    assert list(done) == ["repository", "to", "before", "after", "undo"]
    assert (done["before"]["version"], done["after"]["version"], done["after"]["packages"]) == (2, 3, 1)
    assert done["undo"] == "farm repo rollback demo --arch aarch64 --kind os --to 2 --yes"
    checks = document(driven, "repo", "check")["checks"]
    assert all(list(one) == ["what", "is_ok", "found", "remedy"] and one["is_ok"] for one in checks)


def test_targets(driven: DrivenFarm) -> None:
    found = {one["name"]: one for one in document(driven, "targets")["targets"]}
    assert found["almalinux-9"] == {
        "name": "almalinux-9",
        "distribution": "AlmaLinux",
        "release": "9",
        "format": "rpm",
        "engine": "native",
        "arches": ["x86_64", "aarch64", "ppc64le"],
        "error": None,
    }


def test_settings(driven: DrivenFarm) -> None:
    found = document(driven, "config")["settings"]
    assert found["data"] == {"value": str(driven.settings.data), "from": "FARM_DATA"}
    assert found["lease_s"] == {"value": "30", "from": "default"}


def test_asking_cancelling_and_retrying(driven: DrivenFarm) -> None:
    asked = document(driven, "build", "--git", "https://example.org/c.git", "-t", "demo")["build"]
    assert list(asked) == list(BUILD)
    number = str(asked["id"])
    assert document(driven, "cancel", number)["build"]["outcome"] == "cancelled"
    again = document(driven, "retry", number)
    assert again == {"build": asked["id"], "steps": [step("fetch", None, [], status="ready", outcome=None)]}
    document(driven, "cancel", number)


def test_errors(driven: DrivenFarm) -> None:
    found = document(driven, "status", "99", code=23)
    message = "there is no build 99; `farm list` shows the builds"
    assert found == {"error": {"code": "not-found", "message": message}}
