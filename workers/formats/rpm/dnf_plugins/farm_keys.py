"""A dnf 4 plugin: keeps the keys of repositories beside their packages, for the installation, which has no network.

Owns the folder of keys in dnf's cache. Does not own the check of signatures: dnf makes it after the download and again
before the installation. A key is fetched again after a day, so that a distribution can replace it. Runs on the host's
Python.
"""

import hashlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import dnf

#: Empty in a run that downloads; see farm_plan.py.
_IS_DOWNLOAD = not os.environ.get("FARM_PLAN", "")  # noqa: TID251 - dnf reads this file, and has no settings of the farm
_FOLDER = "/mnt/root/var/cache/dnf/farm-keys"
_FRESH_S = 24 * 3600
_KEY_MAX_BYTES = 2**20


class FarmKeys(dnf.Plugin):  # type: ignore[misc]
    """dnf ignores all exceptions of a plugin but its own class, and says itself which key it lacks."""

    name = "farm_keys"

    def sack(self) -> None:
        if _IS_DOWNLOAD:
            os.makedirs(_FOLDER, exist_ok=True)  # noqa: PTH103
            for repository in self.base.repos.iter_enabled():
                for url in _remote(repository.gpgkey):
                    self._keep(url, repository)

    def config(self) -> None:
        if _IS_DOWNLOAD:
            return
        for repository in self.base.repos.iter_enabled():
            repository.gpgkey = [_kept(url) for url in repository.gpgkey]

    def _keep(self, url: str, repository: Any) -> None:
        path = _path(url)
        try:
            if datetime.now(UTC).timestamp() - os.stat(path).st_mtime < _FRESH_S:  # noqa: PTH116
                return
        except FileNotFoundError:
            pass
        try:
            with self.base.urlopen(url, repository) as answer:
                key = answer.read(_KEY_MAX_BYTES)
        except OSError:
            return
        with open(f"{path}.new", "wb") as file:  # noqa: PTH123
            file.write(key)
        os.replace(f"{path}.new", path)  # noqa: PTH105


def _remote(urls: Iterable[str]) -> list[str]:
    return [url for url in urls if urlsplit(url).scheme in ("http", "https", "ftp")]


def _kept(url: str) -> str:
    path = _path(url)
    return f"file://{path}" if os.path.exists(path) else url  # noqa: PTH110


def _path(url: str) -> str:
    return f"{_FOLDER}/{hashlib.sha256(url.encode()).hexdigest()}"
