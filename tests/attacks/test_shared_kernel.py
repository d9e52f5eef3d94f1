"""Recipes and scriptlets that take what the kernel of a host has once for all builds, or counts for none of them."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import Settings
from farm.model.outcome import Outcome
from farm.model.target import Target
from tests.attacks.test_installations import Layers
from tests.attacks.test_isolation import compiled, run_in_room, settings, target
from tests.waiting import until
from workers.isolation.cgroups import CgroupKind, place
from workers.isolation.sockets import kernel_bytes
from workers.roots import host_tools
from workers.roots.session import Ran

__all__ = ["settings", "target"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
    pytest.mark.skipif(place().kind is CgroupKind.NONE, reason="sockets are watched by group"),
]

_MEMORY_BYTES = 512 * 2**20
_PTYS = 128


@pytest.fixture(scope="module")
def hoard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("hoard", tmp_path_factory.mktemp("hoard"))


@pytest.fixture(scope="module")
def small(target: Target) -> Target:
    return replace(target, limits=replace(target.limits, memory_bytes=_MEMORY_BYTES))


def ran(settings: Settings, target: Target, hoard: Path, folder: Path, what: str) -> tuple[Ran, str]:
    return run_in_room(settings, target, folder, "/run/farm/probe", what, program=hoard)


def said(log: str) -> list[str]:
    return re.findall(r"^HOARD (.+)$", log, re.MULTILINE)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("netlink", "sockets"), ("accepts", "sockets"), ("locks", "locks of files"), ("ofd", "locks of files")],
    ids=["netlink", "accepts", "locks", "ofd"],
)
def test_a_recipe_that_fills_the_kernels_memory_is_ended(
    settings: Settings, small: Target, hoard: Path, tmp_path: Path, what: str, kind: str
) -> None:
    done, log = ran(settings, small, hoard, tmp_path / "a", what)
    assert done.outcome is Outcome.OVER_LIMIT, log
    assert f"took more than 64 MiB of the kernel's memory for {kind}" in (done.reason or "")
    assert "--limit memory=" in (done.reason or "")


def test_a_scriptlet_that_fills_the_kernels_memory_with_sockets_is_ended(
    settings: Settings, target: Target, hoard: Path, tmp_path: Path
) -> None:
    made = Layers(settings=settings, target=target, out=hoard).make("%post\n/usr/libexec/NAME-out netlink", tmp_path)
    assert made.ended is not None
    assert made.ended.outcome is Outcome.OVER_LIMIT
    assert "of the kernel's memory for sockets" in made.ended.reason


def test_the_sockets_of_an_honest_step_are_far_below_the_limit() -> None:
    assert kernel_bytes(host_tools.FILL_LIMITS) >= 2**30
    assert kernel_bytes(replace(host_tools.FILL_LIMITS, memory_bytes=2**20)) >= 2**26


def buffers_bytes() -> int:
    """Of TCP and UDP, on the whole host."""
    pages = re.findall(r"^(?:TCP|UDP): .*\bmem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def held(settings: Settings, target: Target, hoard: Path, folder: Path, what: str) -> Iterator[None]:
    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(ran, settings, target, hoard, folder, what)
        try:
            until(lambda: holder.done() or [*folder.glob("work/*/results/full")], "the session that holds all", 60)
            yield
        finally:
            for full in folder.glob("work/*/results/full"):
                full.with_name("over").touch()


@pytest.mark.parametrize("what", ["tcp", "udp"])
def test_buffers_of_connections_are_part_of_the_memory_of_a_step(
    settings: Settings, small: Target, hoard: Path, tmp_path: Path, what: str
) -> None:
    before = buffers_bytes()
    with held(settings, small, hoard, tmp_path / "hold", what):
        assert buffers_bytes() - before < 1.25 * _MEMORY_BYTES


def test_a_recipe_takes_few_of_the_hosts_pseudo_terminals(
    settings: Settings, target: Target, hoard: Path, tmp_path: Path
) -> None:
    _, log = ran(settings, target, hoard, tmp_path / "a", "ptys")
    assert said(log) == ["pty ok", f"ptys {_PTYS} ENOSPC"]


def test_a_scriptlet_takes_few_of_the_hosts_pseudo_terminals(
    settings: Settings, target: Target, hoard: Path, tmp_path: Path
) -> None:
    script = "%post\n/usr/libexec/NAME-out ptys > /var/ptys; /usr/libexec/NAME-out aio >> /var/ptys"
    made = Layers(settings=settings, target=target, out=hoard).make(script, tmp_path)
    assert made.root is not None, made.log
    assert said((made.root.lowers[0] / "var/ptys").read_text()) == ["pty ok", f"ptys {_PTYS} ENOSPC", "aio ENOSYS"]


def test_a_recipe_takes_none_of_the_hosts_asynchronous_requests(
    settings: Settings, target: Target, hoard: Path, tmp_path: Path
) -> None:
    _, log = ran(settings, target, hoard, tmp_path / "a", "aio")
    assert said(log) == ["aio ENOSYS"]
