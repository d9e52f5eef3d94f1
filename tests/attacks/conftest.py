"""Servers on loopback: a Redis 7 with the accounts that `farm keys acl` makes, and web servers of others."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from typer.testing import CliRunner

from farm.broker.scripts import ScriptLoader
from farm.cli.main import app
from tests.fetching import Server, http_server

ADMIN = "admin"
_WITHIN_S = 10.0
_SERVERS = ("/usr/bin/redis-server", "/usr/bin/valkey-server")


@dataclass(frozen=True, kw_only=True)
class Broker:
    """`unix` is the path of its socket; it listens on a port of loopback too."""

    port: int
    unix: Path
    passwords: dict[str, str]

    def url(self, account: str) -> str:
        return f"redis://{quote(account)}:{quote(self.passwords[account], safe='')}@127.0.0.1:{self.port}/0"

    def unix_url(self, account: str) -> str:
        return f"redis+socket://{quote(account)}:{quote(self.passwords[account], safe='')}@{self.unix}"

    def client(self, account: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(account), protocol=2)

    def load_scripts(self) -> None:
        """As a scheduler does."""
        with self.client("scheduler") as client:
            ScriptLoader(client).load()

    def denials(self) -> list[tuple[str, str, str]]:
        """Account, command and object of each denial so far, without the connections of tests."""
        with self.client(ADMIN) as client:
            entries = client.acl_log()
        return [(e["username"], e["client-info"].get("cmd", ""), f"{e['reason']} {e['object']}") for e in entries]


def server_of_7() -> str:
    """A server with selectors. Skips where there is none."""
    for path in _SERVERS:
        if shutil.which(path):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if int(said.partition("v=")[2].partition(".")[0]) >= 7:
                return path
    pytest.skip("no Redis 7 on this machine")


@contextmanager
def broker_with_accounts(folder: Path, *more: str) -> Iterator[Broker]:
    """`more` are options of the server. With the same folder again it has the same accounts."""
    binary = server_of_7()
    passwords = folder / "passwords"
    if not passwords.exists():
        passwords.write_text("build.x86_64 p@ss:w/o?r%d#\n")
        passwords.chmod(0o600)
    made = CliRunner().invoke(app, ["keys", "acl", "--passwords", str(passwords), "--admin", ADMIN])
    assert made.exit_code == 0, made.output
    acl = folder / "farm.acl"
    acl.write_text(made.stdout)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = dict(line.split() for line in passwords.read_text().splitlines())
    broker = Broker(port=port, unix=folder / "r.sock", passwords=found)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(broker.unix), "--save", ""]
    options += ["--aclfile", str(acl), "--dir", str(folder), "--acllog-max-len", "1000"]
    options += ["--proto-max-bulk-len", "9mb", *more]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([binary, *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _await(broker, process, folder / "redis.log")
            yield broker
        finally:
            process.kill()
            process.wait()


def _await(broker: Broker, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            with broker.client(ADMIN) as client:
                client.ping()
            return
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(log.read_text()[-3000:])
            time.sleep(0.02)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_with_accounts(tmp_path_factory.mktemp("acl")) as broker:
        broker.load_scripts()
        yield broker


@pytest.fixture
def public() -> Iterator[Server]:
    """A server that stands for the internet."""
    with http_server() as server:
        yield server


@pytest.fixture
def private() -> Iterator[Server]:
    """Nothing may ever ask it for anything."""
    with http_server("127.0.0.9") as server:
        yield server
    assert server.seen == []
