"""A file that cannot be downloaded by the network's doing, or this host's; answers are in test_fetch_sources.py."""

import os
from pathlib import Path

import pytest
from plumbum import local

from farm.errors import DiskFull, SourceUnavailable
from farm.model.source import Source, SourceKind
from tests.fetching import Answer, Desk, Server, http_server

pytestmark = pytest.mark.live


def _from(desk: Desk, url: str) -> None:
    desk.fetch(Source(kind=SourceKind.SRPM, url=url))


def test_a_server_without_tls_where_it_should_have_it_is_the_servers(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="SSL"):
        _from(Desk(tmp_path), server.url("/a.src.rpm").replace("http:", "https:"))


def test_a_server_that_is_down_is_the_servers(tmp_path: Path) -> None:
    with http_server() as gone:
        url = gone.url("/a.src.rpm")
    with pytest.raises(SourceUnavailable, match="refused"):
        _from(Desk(tmp_path), url)


def test_a_host_that_does_not_exist_is_named_with_what_was_seen(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"http://nowhere1\.invalid/a\.src\.rpm: .*not known"):
        _from(Desk(tmp_path), "http://nowhere1.invalid/a.src.rpm")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_does_not_hold_the_download_is_this_hosts(server: Server, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    cache = desk.settings.cache
    cache.mkdir(parents=True)
    server.answers["/a.src.rpm"] = Answer(bytes(2**21))
    local["mount"]("-t", "tmpfs", "-o", "size=1m", "tmpfs", cache)
    try:
        with pytest.raises(DiskFull, match="free some space"):
            _from(desk, server.url("/a.src.rpm"))
        assert list((cache / "downloads").iterdir()) == []
    finally:
        local["umount"](cache)
