"""Two servers behind a real nginx, with the example of deploy/nginx: a rolling restart loses nothing, and TLS works."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from farm.broker.leases import Leases
from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.model.actor import Actor, Role
from farm.model.artifact import ArtifactKind
from tests.driven_farm import DrivenFarm, driven_farm
from tests.nginx import example, make_certificate, nginx_program, running_nginx
from tests.served import token_for
from tests.waiting import until

pytestmark = pytest.mark.live
FARM = [sys.executable, "-m", "farm.cli.main"]
ANN = Actor(name="ann", roles=frozenset({Role.PACKAGER}))
URL = "https://example.org/hello.git"
WITHIN_S = 60


@dataclass(kw_only=True)
class Site:
    driven: DrivenFarm
    address: str
    token: str
    ports: tuple[int, ...]
    servers: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, port: int) -> None:
        hosts = {"FARM_SERVER_HOSTS": "localhost", "FARM_SERVER_PROXIES": "127.0.0.1"}
        env = {"PATH": os.environ["PATH"], **self.driven.env, **hosts}
        self.servers[port] = subprocess.Popen([*FARM, "server", "--listen", f"127.0.0.1:{port}"], env=env)
        until(lambda: _answers(port), "the server")

    def end(self, port: int) -> int:
        self.servers[port].send_signal(signal.SIGTERM)
        return self.servers.pop(port).wait(WITHIN_S)

    def connect(self) -> RemoteFarm:
        return RemoteFarm(HttpClient(self.address, self.token))


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    program = nginx_program(folder)
    certificate, key = make_certificate(folder, "localhost")
    ports = _free_port(), _free_port(), _free_port()
    text = example(
        {
            "8780 max_fails": f"{ports[0]} max_fails",
            "8781 max_fails": f"{ports[1]} max_fails",
            "listen 443 ssl": f"listen 127.0.0.1:{ports[2]} ssl",
            "server_name farm.example": "server_name localhost",
            "/etc/ssl/farm.pem": str(certificate),
            "/etc/ssl/farm.key": str(key),
        }
    )
    with ExitStack() as stack:
        driven = stack.enter_context(driven_farm(tmp_path_factory.mktemp("farm"), with_redis=True))
        token = token_for(driven.store, ANN)
        site = Site(driven=driven, address=f"https://localhost:{ports[2]}", token=token, ports=ports[:2])
        stack.callback(lambda: [site.end(port) for port in list(site.servers)])
        for port in site.ports:
            site.start(port)
        stack.enter_context(running_nginx(program, text, folder))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield site


def test_a_rolling_restart_loses_no_request_and_no_follower(site: Site) -> None:
    label = _running_build(site)
    leases = Leases(site.driven.settings)
    stop, failures, asked = threading.Event(), [], [0, 0]

    def ask(number: int) -> None:
        with site.connect() as farm:
            while not stop.is_set():
                try:
                    if number == 0:
                        farm.builds()
                    else:
                        farm.enqueue(git=URL, target="demo", arches=["x86_64"])
                    asked[number] += 1
                except Exception as error:
                    failures.append(error)

    followed: list[bytes] = []

    def follow() -> None:
        with site.connect() as farm:
            followed.extend(farm.log(int(label.split(".")[0]), step="build", follow=True))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(2)]
    follower = threading.Thread(target=follow, daemon=True)
    for thread in (*threads, follower):
        thread.start()
    shown = b""
    for number in range(2):
        for port in site.ports:
            line = b"round %d before %d\n" % (number, port)
            leases.show_log(label, len(shown), line)
            shown += line
            until(lambda: b"".join(followed) == shown, "the line")  # noqa: B023 - it is awaited here
            assert site.end(port) == 0
            before = list(asked)
            until(lambda: asked[0] > before[0] and asked[1] > before[1], "answers of the other server")  # noqa: B023
            site.start(port)
    stop.set()
    for thread in threads:
        thread.join(WITHIN_S)
    assert failures == []
    with site.connect() as farm:
        assert len(farm.builds(limit=1000)) == asked[1] + 1, "no request was carried out twice"
    package = site.driven.stored("a.rpm", b"a package", ArtifactKind.RPM, "a-1-1.x86_64")
    site.driven.succeed(label, shown, files=(package,))
    follower.join(WITHIN_S)
    assert b"".join(followed) == shown


def _running_build(site: Site) -> str:
    build = site.driven.farm.enqueue(git=URL, target="demo", arches=["x86_64"])
    site.driven.to_build(build.id)
    label = f"{build.id}.build.x86_64.1"
    site.driven.start(label)
    return label


def test_the_audit_log_has_the_address_of_the_client_and_not_of_the_proxy(site: Site) -> None:
    with site.connect() as farm:
        farm.enqueue(git=URL, target="demo", arches=["x86_64"])
    assert site.driven.farm.audit(limit=1)[0].origin == "127.0.0.1"
