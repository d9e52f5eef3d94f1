"""Other ways to a Pulp than a password: a client certificate, a CA of one's own, and domains."""

import http.client
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import httpx
import pytest

from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp
from farm.errors import RepositoryTrouble
from farm.model.arch import Arch
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.pulp import PulpRepositories
from tests.pulp_server import local_pulp, pulp_settings
from tests.rpms import make_rpm, sha256

NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
_AUTH = "pulpcore.app.authentication"
_SETTINGS = {
    "DOMAIN_ENABLED": True,
    "REMOTE_USER_ENVIRON_NAME": "HTTP_REMOTE_USER",
    "AUTHENTICATION_BACKENDS": [
        "django.contrib.auth.backends.ModelBackend",
        "pulpcore.backends.ObjectRolePermissionBackend",
        f"{_AUTH}.PulpNoCreateRemoteUserBackend",
    ],
    "REST_FRAMEWORK__DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        f"{_AUTH}.BasicAuthentication",
        f"{_AUTH}.PulpRemoteUserAuthentication",
    ],
}


@pytest.fixture(scope="module")
def open_pulp() -> Iterator[LocalPulp]:
    """A Pulp with domains, such as `builds`, that trusts the user named in a header, as from a proxy."""
    try:
        with local_pulp(workers=1, settings=_SETTINGS) as pulp:
            where = {"location": str(pulp.home.data / "media")}
            body = {
                "name": "builds",
                "storage_class": "pulpcore.app.models.storage.FileSystem",
                "storage_settings": where,
            }
            made = httpx.post(
                f"{pulp.url}/pulp/default/api/v3/domains/", json=body, auth=(pulp.username, pulp.password), timeout=30
            )
            made.raise_for_status()
            yield pulp
    except PulpError as error:
        pytest.skip(str(error))


def package(folder: Path, name: str) -> RepositoryPackage:
    path = make_rpm(folder, name)
    return RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)


def test_a_client_certificate_is_enough_where_the_proxy_takes_it(open_pulp: LocalPulp, tmp_path: Path) -> None:
    ca = _certificates(tmp_path)
    with _tls_proxy(open_pulp.url, tmp_path) as url:
        own = {"pulp_url": url, "pulp_username": "", "pulp_password": "", "pulp_retry_s": 2.0}
        mine = {"pulp_cert": tmp_path / "client.pem", "pulp_key": tmp_path / "client.key"}
        backend = PulpRepositories(pulp_settings(open_pulp, tmp_path, **own, **mine, pulp_ca=ca))
        assert backend.add(NAME, [package(tmp_path, "one")]) == 1
        assert [check for check in backend.check() if not check.is_ok] == []
        with pytest.raises(RepositoryTrouble, match="FARM_PULP_CA"):
            PulpRepositories(pulp_settings(open_pulp, tmp_path, **own, **mine)).add(NAME, [])
        with pytest.raises(RepositoryTrouble, match=r"certificate|ssl|SSL|closed"):
            PulpRepositories(pulp_settings(open_pulp, tmp_path, **own, pulp_ca=ca)).add(NAME, [])


def test_packages_published_to_a_domain_are_served_below_it(open_pulp: LocalPulp, tmp_path: Path) -> None:
    settings = pulp_settings(open_pulp, tmp_path, pulp_domain="builds")
    backend = PulpRepositories(settings)
    number = backend.add(NAME, [package(tmp_path, "two")])
    assert f"/pulp/content/builds/{settings.pulp_prefix}/demo/x86_64/os/{number}/" in backend.url(NAME, number)
    with urlopen(f"{backend.url(NAME)}repodata/repomd.xml", timeout=30) as answer:
        assert answer.status == 200
    elsewhere = PulpRepositories(pulp_settings(open_pulp, tmp_path, pulp_prefix=settings.pulp_prefix))
    assert elsewhere.current(NAME) == 0
    assert [check for check in backend.check() if not check.is_ok] == []


def test_a_domain_that_is_not_there_is_said(open_pulp: LocalPulp, tmp_path: Path) -> None:
    settings = pulp_settings(open_pulp, tmp_path, pulp_domain="nowhere", pulp_retry_s=2.0)
    with pytest.raises(RepositoryTrouble, match=r"404|nowhere"):
        PulpRepositories(settings).add(NAME, [])


def _certificates(folder: Path) -> Path:
    """A CA, a server's certificate for 127.0.0.1 and a client's for `admin`; the CA's path."""
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    _openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA", "-days", "2")
    for name, subject in (("server", "/CN=127.0.0.1"), ("client", "/CN=admin")):
        _openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *ca, "-out", f"{name}.pem")
    return folder / "ca.pem"


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)


@contextmanager
def _tls_proxy(upstream: str, folder: Path) -> Iterator[str]:
    """Does the same as nginx in production: requires a client's certificate, and tells Pulp its owner."""
    parts = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            subject = dict(pair[0] for pair in self.connection.getpeercert()["subject"])  # type: ignore[attr-defined]
            headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            connection.request(self.command, self.path, body, headers | {"Remote-User": subject["commonName"]})
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815 - http.server's names

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that is turned away is what a test wants

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
