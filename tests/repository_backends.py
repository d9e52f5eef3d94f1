"""The repository back ends, each made for one test, and the actions of tests on them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.model.arch import Arch
from farm.repositories.base import RepositoryBackend, RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.repositories.pulp import PulpRepositories
from tests.pulp_server import pulp_settings
from tests.rpms import sha256


def directory(tmp_path: Path, _request: pytest.FixtureRequest) -> RepositoryBackend:
    # No version is young: only `keep` counts, and no add waits for others.
    return DirectoryRepositories(tmp_path / "a root + blank", grace_s=-1.0, pause_s=0.0)


def pulp(tmp_path: Path, request: pytest.FixtureRequest) -> RepositoryBackend:
    """With a prefix of its own in the session's Pulp, and the group commit of a Redis of its own."""
    server = request.getfixturevalue("pulp")
    socket = request.getfixturevalue("together_redis")
    settings = pulp_settings(server, tmp_path, broker_url=f"redis+socket://{socket}")
    return PulpRepositories(settings, grace_s=-1.0)


#: By name, what makes one whose repositories no other test has used.
BACKENDS: dict[str, Callable[[Path, pytest.FixtureRequest], RepositoryBackend]] = {"directory": directory, "pulp": pulp}
NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
SOURCE = RepositoryName(target="demo", kind=RepositoryKind.SOURCE)
LOGS = RepositoryName(target="demo", kind=RepositoryKind.LOGS)


def package(path: Path) -> RepositoryPackage:
    return RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)


def dnf(tmp_path: Path, url: str, *arguments: str) -> list[str]:
    """The lines that dnf says about the repository, with no cache from before."""
    cache = tmp_path / "dnf-cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = ["dnf", "-q", "--releasever=1", f"--setopt=cachedir={cache}", "--setopt=reposdir=/dev/null"]
    command += [f"--repofrompath=farm,{url}", "--repo=farm", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


def counts(backend: RepositoryBackend, name: RepositoryName = NAME) -> dict[int, int]:
    return {version.number: version.packages for version in backend.versions(name)}
