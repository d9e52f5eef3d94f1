"""The shipped targets, as they are but for the addresses: roots filled from repositories in the forms that their
distributions publish, through mirror lists and metalinks with mirrors in trouble, with signatures checked."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from farm.config import Settings
from farm.errors import NetworkTrouble, RootTrouble
from farm.model.outcome import Outcome
from farm.model.target import Target
from farm.targets.load import find_target
from tests import mirrors
from tests.line import Line, leftovers
from tests.mirrors import Key, Mirrors
from tests.rpms import make_rpm

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the native engine mounts overlays and needs root"),
]

TARGETS = ("almalinux-9", "centos-stream-10", "fedora-44")
#: Enough for a failure that comes before a recipe runs.
FEW = ("filesystem",)


def make_key() -> Iterator[Key]:
    with tempfile.TemporaryDirectory(prefix="gpg-") as folder:
        key = Key.make(Path(folder) / "home")
        yield key
        key.close()


key = pytest.fixture(make_key, scope="module", name="key")
other_key = pytest.fixture(make_key, scope="module", name="other_key")


@pytest.fixture(scope="module")
def packages(key: Key, demo_distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Signed copies."""
    folder = tmp_path_factory.mktemp("signed")
    copies = [Path(shutil.copy(one, folder)) for one in sorted((demo_distribution / "x86_64").glob("*.rpm"))]
    key.sign(copies)
    return copies


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.from_env({"FARM_DATA": str(tmp_path_factory.mktemp("farm"))})


Published = Callable[[str], Mirrors]
Lines = Callable[[Target], Line]


@pytest.fixture(scope="module")
def published(
    settings: Settings, packages: list[Path], key: Key, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    """The mirrors of a shipped target, which are made when a test first asks for them."""
    made: dict[str, Mirrors] = {}
    with ExitStack() as stack:

        def find(name: str) -> Mirrors:
            if name not in made:
                folder = tmp_path_factory.mktemp(name)
                target = find_target(settings, name)
                mirrors.publish(folder, target, packages, key)
                made[name] = stack.enter_context(mirrors.serving(Mirrors(folder)))
                set_keys(made[name], target, key.public)
            return made[name]

        yield find


def set_keys(server: Mirrors, target: Target, key: bytes) -> None:
    for one in target.repositories:
        address = urlsplit(one.gpgkey or "")
        server.keys[f"/{address.netloc}{address.path}"] = key


@pytest.fixture
def line(settings: Settings, tmp_path: Path) -> Iterator[Callable[[Target], Line]]:
    yield lambda target: Line(settings, target, tmp_path)
    assert leftovers(settings) == []


@pytest.mark.parametrize("name", TARGETS)
def test_a_shipped_target_builds_a_package(name: str, published: Published, settings: Settings, line: Lines) -> None:
    server = published(name)
    made = line(server.moved_here(find_target(settings, name)))
    result = made.git("hello-c")
    assert (result.outcome, result.reason) == (Outcome.SUCCEEDED, None)
    assert server.asked[mirrors.MOVED], "no mirror that redirects was asked"
    assert server.asked[mirrors.STALE], "no stale mirror was asked"
    assert server.asked[mirrors.SLOW], "no slow mirror was asked"


def test_each_step_after_the_first_needs_no_network_for_keys(
    published: Published, settings: Settings, line: Lines
) -> None:
    target = published("fedora-44").moved_here(find_target(settings, "fedora-44"))
    made = line(target)
    assert made.git("hello-c").outcome is Outcome.SUCCEEDED
    asked = dict(published("fedora-44").asked)
    shutil.rmtree(made.folder / "hello-c")
    assert made.git("hello-c").outcome is Outcome.SUCCEEDED
    assert dict(published("fedora-44").asked) == asked


@pytest.fixture
def small(published: Published, settings: Settings, key: Key) -> tuple[Mirrors, Target]:
    """A target with few packages on the mirrors of AlmaLinux, and the mirrors, whose keys a test may change."""
    server, shipped = published("almalinux-9"), find_target(settings, "almalinux-9")
    set_keys(server, shipped, key.public)
    shutil.rmtree(settings.cache, ignore_errors=True)
    return server, server.moved_here(shipped, packages=FEW)


def with_gpgkey(target: Target, path: Path) -> Target:
    return replace(target, repositories=tuple(replace(one, gpgkey=f"file://{path}") for one in target.repositories))


def test_a_package_signed_by_another_key_is_named_with_the_key(
    small: tuple[Mirrors, Target], line: Lines, other_key: Key
) -> None:
    server, target = small
    set_keys(server, find_target(line(target).settings, "almalinux-9"), other_key.public)
    with pytest.raises(RootTrouble, match=r"package \S+\.rpm is not signed by a key of its repository: http://.*-9"):
        line(target).git("hello-c")


def test_a_key_that_the_server_does_not_have_is_named(small: tuple[Mirrors, Target], line: Lines) -> None:
    server, target = small
    server.keys.clear()
    with pytest.raises(NetworkTrouble, match=r"Status code: 404 for http://\S+/RPM-GPG-KEY-AlmaLinux-9"):
        line(target).git("hello-c")


def test_an_unsigned_package_is_named(small: tuple[Mirrors, Target], line: Lines) -> None:
    server, target = small
    (server.folder / "plain").mkdir(exist_ok=True)
    mirrors.write_repository(
        server.folder / "good/unsigned", [make_rpm(server.folder / "plain", "unsigned")], mirrors.FORMS["AlmaLinux"]
    )
    first, *rest = target.repositories
    assert first.mirrorlist
    unsigned = replace(first, name="unsigned", mirrorlist=first.mirrorlist.replace("baseos", "unsigned"))
    with pytest.raises(RootTrouble, match=r"package unsigned-1-1\.noarch\.rpm is not signed; the target has gpgcheck"):
        line(replace(target, repositories=(first, *rest, unsigned), packages=(*FEW, "unsigned"))).git("hello-c")


def test_a_key_in_a_file_of_the_host_is_used(
    small: tuple[Mirrors, Target], line: Lines, key: Key, tmp_path: Path
) -> None:
    server, target = small
    server.keys.clear()
    (tmp_path / "key").write_bytes(key.public)
    made = line(with_gpgkey(target, tmp_path / "key"))
    # The root is filled, and too small for a build: it has no rpmspec, which is the first program of a step.
    assert made.git("hello-c").outcome is Outcome.FAILED
    assert b"rpmspec exited with code" in made.log


def test_a_key_in_a_missing_file_is_named(small: tuple[Mirrors, Target], line: Lines, tmp_path: Path) -> None:
    with pytest.raises(RootTrouble, match=r"repository baseos of the target has the gpgkey /.*/none, which is not a"):
        line(with_gpgkey(small[1], tmp_path / "none")).git("hello-c")


@pytest.mark.parametrize(
    ("name", "outcome"), [("zlib1g-dev", Outcome.SUCCEEDED), ("libacl1-dev", Outcome.UNRESOLVABLE)]
)
def test_only_packages_of_default_streams_are_used(
    name: str, outcome: Outcome, published: Published, settings: Settings, line: Lines
) -> None:
    made = line(published("almalinux-9").moved_here(find_target(settings, "almalinux-9")))
    result = made.spec(head=f"BuildRequires: {name}")
    assert result.outcome is outcome, result.reason
    if outcome is Outcome.UNRESOLVABLE:
        assert "modular filtering" in (result.reason or "")
