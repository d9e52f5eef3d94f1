"""Attacks by a mirror of a repository: it redirects dnf to addresses behind the farm's firewall."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import NetworkTrouble
from farm.model.target import Target
from farm.targets.load import find_target
from tests.fetching import Answer, Server, http_server
from tests.line import Line, leftovers

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the native engine mounts overlays and needs root"),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"FARM_DATA": str(tmp_path / "farm")})


@pytest.fixture
def mirror() -> Iterator[Server]:
    """The only host that the target names, which is on the loopback."""
    with http_server() as server:
        yield server


@pytest.fixture
def inside() -> Iterator[Server]:
    """A server that the target does not name."""
    with http_server("127.0.0.9") as server:
        server.answers["/repodata/repomd.xml"] = Answer(b"secret")
        yield server


def _target(settings: Settings, mirror: Server, **changes: str) -> Target:
    target = find_target(settings, "almalinux-9")
    named = {"baseurl": mirror.url("/os"), "metalink": None, "mirrorlist": None, **changes}
    first = replace(target.repositories[0], gpgcheck=False, gpgkey=None, **named)
    return replace(target, repositories=(first,))


def _trouble(settings: Settings, target: Target, folder: Path) -> str:
    with pytest.raises(NetworkTrouble) as raised:
        Line(settings, target, folder).git("hello-c")
    assert leftovers(settings) == []
    return str(raised.value)


def test_a_redirect_to_another_server_behind_the_firewall_is_not_followed(
    settings: Settings, mirror: Server, inside: Server, tmp_path: Path
) -> None:
    mirror.answers["/os/repodata/repomd.xml"] = Answer(
        status=302, headers=(("Location", inside.url("/repodata/repomd.xml")),)
    )
    said = _trouble(settings, _target(settings, mirror), tmp_path)
    assert mirror.seen, "dnf did not ask the mirror, so the test shows nothing"
    assert inside.seen == []
    assert "its address is 127.0.0.9, to which the farm does not connect: it is not public" in said


def test_a_mirror_of_a_list_is_no_host_that_the_target_names(
    settings: Settings, mirror: Server, inside: Server, tmp_path: Path
) -> None:
    mirror.answers["/list"] = Answer(f"{inside.url('/')}\n".encode())
    target = _target(settings, mirror, mirrorlist=mirror.url("/list"))
    first = replace(target.repositories[0], baseurl=None)
    said = _trouble(settings, replace(target, repositories=(first,)), tmp_path)
    assert inside.seen == []
    assert "127.0.0.9" in said
    assert "it is not public" in said


def test_a_network_that_the_target_allows_is_open_to_mirrors(
    settings: Settings, mirror: Server, inside: Server, tmp_path: Path
) -> None:
    """Without this the tests above could not fail."""
    mirror.answers["/os/repodata/repomd.xml"] = Answer(
        status=302, headers=(("Location", inside.url("/repodata/repomd.xml")),)
    )
    _trouble(settings, replace(_target(settings, mirror), allow_networks=("127.0.0.8/29",)), tmp_path)
    assert inside.seen == ["/repodata/repomd.xml"] * len(inside.seen) != []


def test_a_server_that_refuses_the_connection_is_named(settings: Settings, mirror: Server, tmp_path: Path) -> None:
    with http_server() as gone:
        address = gone.url("/os")
    said = _trouble(settings, _target(settings, mirror, baseurl=address), tmp_path)
    assert f"127.0.0.1 port {gone.port}: Connection refused" in said
