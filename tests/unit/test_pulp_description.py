"""A Pulp's description of its API is kept for its versions and for an hour, and then requested again."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farm.repositories.pulp.http import Api
from farm.repositories.pulp.words import NotThere

_DESCRIPTION = {"openapi": "3.0.3", "info": {"title": "Pulp", "version": "v3"}, "paths": {}, "components": {}}


class _Pulp:
    """Answers with its versions and its API description, and counts requests for the latter."""

    def __init__(self) -> None:
        self.version, self.described, self.url = "3.123.1", 0, ""
        self.description: object = _DESCRIPTION

    def answer(self, path: str) -> object:
        if path.endswith("/status/"):
            return {"versions": [{"component": "core", "version": self.version}], "domain_enabled": False}
        self.described += 1
        return self.description


@pytest.fixture
def pulp() -> Iterator[_Pulp]:
    told = _Pulp()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(told.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def _connect(pulp: _Pulp, cache: Path) -> None:
    Api(pulp.url, auth=None, verify=True, request_s=10, cache=cache)


def test_it_is_asked_for_once_by_all_processes_of_a_farm(pulp: _Pulp, tmp_path: Path) -> None:
    for _ in range(3):
        _connect(pulp, tmp_path / "cache")
    assert pulp.described == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


def test_other_versions_describe_themselves(pulp: _Pulp, tmp_path: Path) -> None:
    _connect(pulp, tmp_path)
    pulp.version = "3.124.0"
    _connect(pulp, tmp_path)
    assert pulp.described == 2


def test_after_an_hour_it_is_requested_again(pulp: _Pulp, tmp_path: Path) -> None:
    _connect(pulp, tmp_path)
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime - 3700
    os.utime(kept, (before, before))
    _connect(pulp, tmp_path)
    assert pulp.described == 2


def test_where_it_cannot_be_kept_it_is_asked_for_each_time(pulp: _Pulp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        _connect(pulp, tmp_path / "file" / "cache")
    assert pulp.described == 2


def test_nonsense_is_not_kept(pulp: _Pulp, tmp_path: Path) -> None:
    """As a proxy says it for a moment, with a 200."""
    pulp.description = ["maintenance"]
    with pytest.raises(NotThere):
        _connect(pulp, tmp_path)
    pulp.description = _DESCRIPTION
    _connect(pulp, tmp_path)
    assert pulp.described == 2
