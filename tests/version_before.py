"""A farm of the version before, from tests/data/farm-0006: its database, files and Redis, as if it stopped just now.

Owns how the data is brought to a new place: paths, the address of a server, and times, which are moved so that the farm
stopped a moment ago. tests/data/farm-0006/README.md describes the data.
"""

import json
import re
import sqlite3
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import redis
import sqlalchemy as sa

HERE = Path(__file__).parent / "data/farm-0006"
_TIME = re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
_AROUND = timedelta(hours=5)  # a quarantine ends later than the farm stopped


@dataclass(frozen=True, kw_only=True)
class VersionBefore:
    """`git_server` is the host and port that are to serve /git/uses-libgreet to `login`."""

    data: Path
    git_server: str
    loaded_at: datetime

    @property
    def about(self) -> dict[str, Any]:
        return self._json("about.json")

    @property
    def said(self) -> dict[str, Any]:
        """The JSON documents that the command line of the version before printed of this farm."""
        return self._json("said.json")

    @property
    def builds(self) -> dict[str, int]:
        """Build numbers, by what is special about each."""
        builds: dict[str, int] = self.about["builds"]
        return builds

    def put_files(self) -> None:
        """Artifacts, repositories and a git repository."""
        self.data.mkdir(parents=True, exist_ok=True)
        with tarfile.open(HERE / "data.tar.xz") as tar:
            tar.extractall(self.data, filter="tar")

    def put_sqlite(self) -> str:
        """The URL of the database."""
        path = self.data / "farm.db"
        with sqlite3.connect(path) as connection:
            connection.executescript(self._text("sqlite.sql"))
        connection.close()
        return f"sqlite:///{path}"

    def put_postgresql(self, url: str) -> None:
        """Into an empty database."""
        plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as connection:
            connection.execute(self._text("postgresql.sql").encode())

    def put_redis(self, client: redis.Redis) -> None:
        """Every key, with the time that it had left to live."""
        for one in self._json("redis.json"):
            _put(client, one["key"], one["kind"], one["value"])
            if one["left_ms"] > 0:
                client.pexpire(one["key"], one["left_ms"])

    def _json(self, name: str) -> Any:
        return json.loads(self._text(name))

    def _text(self, name: str) -> str:
        about = json.loads((HERE / "about.json").read_text())
        stopped_at = datetime.fromisoformat(about["frozen_at"])
        shift = timedelta(seconds=round((self.loaded_at - stopped_at).total_seconds()))
        text = (HERE / name).read_text()
        text = text.replace(about["data"], str(self.data)).replace(about["git_server"], self.git_server)
        return _TIME.sub(lambda found: _moved(found[0], stopped_at, shift), text)


def _moved(text: str, around: datetime, shift: timedelta) -> str:
    """A time of the farm's life, later; other times, such as a commit's, as they are."""
    at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return (at + shift).isoformat(sep=text[10])[:19] if abs(at - around) < _AROUND else text


def _put(client: redis.Redis, key: str, kind: str, value: Any) -> None:
    match kind:
        case "string":
            client.set(key, value)
        case "hash":
            client.hset(key, mapping=value)
        case "list":
            client.rpush(key, *value)
        case "set":
            client.sadd(key, *value)
        case _:
            raise AssertionError(f"{key} is a {kind}")
