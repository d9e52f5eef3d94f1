"""Mirrors of a public distribution, for the targets that the farm ships: signed packages of the demo distribution, in
repositories of the forms that distributions publish, behind the mirror lists and metalinks that lead to them.

All servers are one, on the loopback. A URL `https://HOST/PATH` of a target is `http://127.0.0.1:PORT/HOST/PATH` here.
"""

import hashlib
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from farm.formats.rpm.settings import settings_of
from farm.model.target import Target

_TIMEOUT_S = 120
_SLOW_S = 0.2
_ARCH = "x86_64"
BAD_CERTIFICATE, STALE, MOVED, SLOW, GOOD = "bad-certificate", "stale", "moved", "slow", "good"
#: A metalink has a checksum of the index, so dnf passes over a stale mirror that comes first. For a mirror list it
#: cannot tell the index of a stale mirror from that of the others.
IN_METALINK = (BAD_CERTIFICATE, STALE, MOVED, SLOW, GOOD)
IN_MIRROR_LIST = (BAD_CERTIFICATE, MOVED, STALE, SLOW, GOOD)


def _run(*words: str | Path, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        list(map(str, words)),
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]


# --- packages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A key pair of its own keyring, and what signs packages with it."""

    home: Path

    @classmethod
    def make(cls, home: Path) -> "Key":
        """The path of the home has to be short: gpg's agent listens on a socket in it."""
        home.mkdir(mode=0o700)
        words = ("--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Mirrors <mirrors@demo.example>")
        _run("gpg", *words, "rsa2048", "sign", "never", env={"GNUPGHOME": str(home)})
        return cls(home)

    @property
    def public(self) -> bytes:
        words = ["gpg", "--homedir", str(self.home), "--export", "--armor"]
        return subprocess.run(words, capture_output=True, timeout=_TIMEOUT_S, check=True).stdout

    def sign(self, packages: Sequence[Path]) -> None:
        defines = ("--define", "_gpg_name mirrors@demo.example", "--define", f"__gpg {shutil.which('gpg')}")
        _run("rpmsign", *defines, "--addsign", *packages, env={"GNUPGHOME": str(self.home)})

    def close(self) -> None:
        """End gpg's agent."""
        _run("gpgconf", "--homedir", self.home, "--kill", "all")


def release_package(folder: Path, target: Target) -> Path:
    """The target's release package, with the names that the demo distribution does not have, and the place of the
    database that the target names."""
    name = next(one for one in target.packages if one.endswith("-release"))
    spec = folder / f"{name}.spec"
    spec.write_text(f"""\
Name: {name}
Version: {target.release}
Release: 1
Summary: Stands for the release package of {target.distribution}
License: MIT
BuildArch: noarch
Requires: demo-build
Provides: info, shadow-utils, rpm-build, xz
%description
It stands for the release package of {target.distribution}.
%install
mkdir -p %{{buildroot}}/etc/rpm
echo '%%_dbpath {settings_of(target).rpmdb}' > %{{buildroot}}/etc/rpm/macros.release
%files
/etc/rpm/macros.release
""")
    _run("rpmbuild", "-bb", "--define", f"_topdir {folder / name}", "--define", f"_dbpath {folder / 'db'}", spec)
    (made,) = (folder / name / "RPMS").glob("noarch/*.rpm")
    return made.rename(folder / made.name)


# --- repositories ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form in which a distribution publishes: the compression of metadata and of comps."""

    compression: str
    comps: str
    with_modules: bool


#: The forms in use when these targets were written.
FORMS = {
    "AlmaLinux": Form(compression="gz", comps="xz", with_modules=True),
    "CentOS Stream": Form(compression="gz", comps="gz", with_modules=False),
    "Fedora": Form(compression="zstd", comps="zstd", with_modules=False),
}

_COMPS = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE comps PUBLIC "-//Red Hat, Inc.//DTD Comps info//EN" "comps.dtd">
<comps>
  <group>
    <id>buildsys-build</id>
    <name>Buildsystem building group</name>
    <default>false</default>
    <uservisible>false</uservisible>
    <packagelist>
      <packagereq type="mandatory">bash</packagereq>
      <packagereq type="mandatory">rpm-build</packagereq>
    </packagelist>
  </group>
  <environment>
    <id>minimal-environment</id>
    <name>Minimal</name>
    <grouplist><groupid>buildsys-build</groupid></grouplist>
  </environment>
</comps>
"""

_IN_MODULES = ("libacl1-dev-", "zlib1g-dev-")
_MODULES = """\
---
document: modulemd
version: 2
data:
  name: {name}
  stream: "1"
  version: 1
  context: c0ffee
  arch: x86_64
  summary: A module
  description: A module of one package.
  license: {{module: [MIT]}}
  dependencies: [{{}}]
  artifacts: {{rpms: ["{nevra}"]}}
...
"""
_DEFAULTS = """\
---
document: modulemd-defaults
version: 1
data: {{module: {name}, stream: "1", profiles: {{}}}}
...
"""


def write_repository(folder: Path, packages: Sequence[Path], form: Form, modules: str = "") -> Path:
    """Packages (as links), their metadata, comps, and `modules` if the form has them."""
    (folder / "Packages").mkdir(parents=True)
    for package in packages:
        os.link(package, folder / "Packages" / package.name)
    comps = folder.parent / "comps.xml"
    comps.write_text(_COMPS)
    types = ("--general-compress-type", form.compression, "--compress-type", form.comps)
    _run("createrepo_c", "--quiet", *types, "--groupfile", comps, folder)
    if modules:
        source = folder.parent / "modules.yaml"
        source.write_text(modules)
        _run("modifyrepo_c", "--mdtype=modules", f"--compress-type={form.compression}", source, folder / "repodata")
    return folder


def module_documents(packages: Sequence[Path]) -> str:
    """Two modules: the package of the first, `libacl1-dev`, is in a stream that is not enabled; the stream of the
    second, `zlib1g-dev`, is its module's default."""
    hidden, shown = (next(one for one in packages if one.name.startswith(name)) for name in _IN_MODULES)
    documents = [_MODULES.format(name=name, nevra=_nevra(one)) for name, one in (("hidden", hidden), ("shown", shown))]
    return "".join([*documents, _DEFAULTS.format(name="shown")])


def _nevra(package: Path) -> str:
    form = "%{name}-%|epoch?{%{epoch}}:{0}|:%{version}-%{release}.%{arch}"
    words = ["rpm", "--query", "--nosignature", "--queryformat", form, "--package", str(package)]
    return subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout


def publish(folder: Path, target: Target, packages: Sequence[Path], key: Key) -> None:
    """Write the repositories of a target below `folder`: the first has the packages and the release package, the second
    the packages of modules, the others none. The stale mirror has a state from before the release package and some of
    the others were there."""
    release = release_package(folder, target)
    key.sign([release])
    form = FORMS[target.distribution]
    in_modules = [one for one in packages if one.name.startswith(_IN_MODULES)]
    rest = [one for one in packages if one not in in_modules]
    modules = module_documents(in_modules) if form.with_modules else ""
    first, second, *others = (one.name for one in target.repositories)
    for mirror, content in (("good", [*rest, release]), ("stale", rest[: len(rest) // 2])):
        write_repository(folder / mirror / first, content, form)
        write_repository(folder / mirror / second, in_modules, form, modules)
        for name in others:
            write_repository(folder / mirror / name, [], form)


# --- servers ---------------------------------------------------------------------------------------------------------


@dataclass
class Mirrors:
    """`folder` has `good/NAME` and `stale/NAME` for each repository; `keys` are the answers for paths that a target
    names as a `gpgkey`. `asked` counts the requests of each mirror."""

    folder: Path
    keys: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    port: int = 0
    secure_port: int = 0

    def moved_here(self, target: Target, **changes: object) -> Target:
        """The target with all its addresses on this server; nothing else of it is changed, but for `changes`."""
        sources = tuple(
            replace(
                one,
                baseurl=self._here(one.baseurl),
                metalink=self._here(one.metalink),
                mirrorlist=self._here(one.mirrorlist),
                gpgkey=self._here(one.gpgkey),
            )
            for one in target.repositories
        )
        return replace(target, repositories=sources, **changes)  # type: ignore[arg-type]

    def _here(self, url: str | None) -> str | None:
        return url and url.replace("https://", f"http://127.0.0.1:{self.port}/")

    def answer(self, path: str, query: str) -> bytes | Path | str:
        """The body, the file that has it, or the path to which a mirror has moved. Raises KeyError for another path."""
        if path in self.keys:
            return self.keys[path]
        if path.endswith("/metalink"):
            return self._metalink(parse_qs(query)["repo"][0])
        if "/mirrorlist/" in path:
            return "".join(f"{self._url(mirror, _repository(path))}\n" for mirror in IN_MIRROR_LIST).encode()
        _, place, mirror, name, rest = unquote(path).split("/", 4)
        if place != "mirror":
            raise KeyError(path)
        self.asked[mirror] += 1
        if mirror == MOVED:
            return f"/mirror/{GOOD}/{name}/{rest}"
        if mirror == SLOW:
            time.sleep(_SLOW_S)
        return self.folder / ("stale" if mirror == STALE else "good") / name / rest.removeprefix(f"{_ARCH}/os/")

    def _url(self, mirror: str, name: str, arch: str = "$basearch") -> str:
        is_secure = mirror == BAD_CERTIFICATE
        scheme, port = ("https", self.secure_port) if is_secure else ("http", self.port)
        return f"{scheme}://127.0.0.1:{port}/mirror/{mirror}/{name}/{arch}/os/"

    def _metalink(self, repo: str) -> bytes:
        name = _name_of(repo)
        index = (self.folder / "good" / name / "repodata/repomd.xml").read_bytes()
        urls = "".join(
            f'<url protocol="http" type="http" location="US" preference="{100 - place}">'
            f"{self._url(mirror, name, _ARCH)}repodata/repomd.xml</url>"
            for place, mirror in enumerate(IN_METALINK)
        )
        return f"""\
<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" generator="mirrormanager"
          xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files><file name="repomd.xml">
  <mm0:timestamp>{int(time.time())}</mm0:timestamp>
  <size>{len(index)}</size>
  <verification><hash type="sha256">{hashlib.sha256(index).hexdigest()}</hash></verification>
  <resources maxconnections="1">{urls}</resources>
 </file></files>
</metalink>
""".encode()


def _repository(path: str) -> str:
    """The repository of a mirror list: `/mirrorlist/9/baseos`."""
    return path.rpartition("/")[2]


def _name_of(repo: str) -> str:
    """The repository of a metalink: `centos-baseos-10-stream`, `fedora-44`, `updates-released-f44`."""
    words = repo.removeprefix("centos-").removesuffix("-stream").removeprefix("extras-sig-").split("-")
    return "-".join(word for word in words if word != "released" and not word.lstrip("f").isdigit())


def _handler(mirrors: Mirrors) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            try:
                found = mirrors.answer(asked.path, asked.query)
                body = found.read_bytes() if isinstance(found, Path) else found
            except (KeyError, ValueError, OSError):
                self.send_error(404)
                return
            if isinstance(body, str):
                self.send_response(302)
                self.send_header("Location", body)
                body = b""
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    return Handler


@contextmanager
def serving(mirrors: Mirrors) -> Iterator[Mirrors]:
    """Serve until the block ends, over HTTP, and over HTTPS with a certificate that signs itself."""
    pair = (mirrors.folder / "cert.pem", mirrors.folder / "key.pem")
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mirror.invalid")
    _run("openssl", *words, "-out", pair[0], "-keyout", pair[1])
    handler = _handler(mirrors)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain,
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as secure,
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
        mirrors.port, mirrors.secure_port = plain.server_address[1], secure.server_address[1]
        threads = [
            threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05}) for one in (plain, secure)
        ]
        for thread in threads:
            thread.start()
        try:
            yield mirrors
        finally:
            for server, thread in zip((plain, secure), threads, strict=True):
                server.shutdown()
                thread.join()
