"""Files over HTTP: parts, tags and digests of artifacts and repositories, and dnf that installs from the server."""

import base64
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from farm.config import Settings
from farm.model.actor import Actor, Role
from farm.model.artifact import ArtifactKind
from farm.repositories import RepositoryPackage, open_repositories
from tests.driven_farm import DrivenFarm, driven_farm
from tests.repository_backends import NAME
from tests.rpms import make_rpm, sha256
from tests.served import served, token_for

EVE = Actor(name="eve", roles=frozenset({Role.READER}))
OS = "/repos/demo/x86_64/os"
SPEC = """
Name: greeting
Version: {version}
Release: 1
Summary: A greeting
License: MIT
BuildArch: noarch
AutoReqProv: no
%description
A greeting.
%install
mkdir -p %{{buildroot}}/usr/share
echo {version} > %{{buildroot}}/usr/share/greeting
%files
/usr/share/greeting
"""


class Site:
    def __init__(self, driven: DrivenFarm, address: str, folder: Path) -> None:
        self.driven = driven
        self.address = address
        self.folder = folder
        self.token = token_for(driven.store, EVE)
        self.headers = {"authorization": f"Bearer {self.token}"}
        self.client = httpx.Client(base_url=address, headers=self.headers, trust_env=False, timeout=60)
        self.backend = open_repositories(driven.settings)

    def publish(self, path: Path) -> str:
        """The path of the package at the server."""
        digest = sha256(path)
        self.backend.add(NAME, [RepositoryPackage(path=path, sha256=digest, filename=path.name)])
        return f"{OS}/current/packages/{digest[:2]}/{digest}/{path.name}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("f"), with_redis=False) as driven, served(driven.settings) as address:
        made = Site(driven, address, tmp_path_factory.mktemp("rpms"))
        with made.client:
            yield made


_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "no_proxy": "*"}
DATA = bytes(range(256)) * 2000


@pytest.mark.parametrize(
    ("asked", "status", "part", "content_range"),
    [
        ({}, 200, slice(None), None),
        ({"range": "bytes=0-0"}, 206, slice(0, 1), "bytes 0-0/512000"),
        ({"range": "bytes=5-9"}, 206, slice(5, 10), "bytes 5-9/512000"),
        ({"range": "bytes=300000-"}, 206, slice(300_000, None), "bytes 300000-511999/512000"),
        ({"range": "bytes=-7"}, 206, slice(-7, None), "bytes 511993-511999/512000"),
        ({"range": "bytes=-9999999"}, 206, slice(None), "bytes 0-511999/512000"),
        ({"range": "bytes=511999-9999999"}, 206, slice(511_999, None), "bytes 511999-511999/512000"),
        ({"range": "bytes=512000-"}, 416, slice(0, 0), "bytes */512000"),
        ({"range": "bytes=-0"}, 416, slice(0, 0), "bytes */512000"),
        ({"range": "bytes=9-5"}, 200, slice(None), None),
        ({"range": "bytes=0-1,5-6"}, 200, slice(None), None),
        ({"range": "bytes=x-"}, 200, slice(None), None),
        ({"range": "bytes=-"}, 200, slice(None), None),
        ({"range": "lines=1-2"}, 200, slice(None), None),
        ({"range": "bytes=5-9", "if-range": '"another"'}, 200, slice(None), None),
        ({"range": "bytes=5-9", "if-range": "ETAG"}, 206, slice(5, 10), "bytes 5-9/512000"),
        ({"if-none-match": '"another"'}, 200, slice(None), None),
        ({"if-none-match": '"another", ETAG'}, 304, slice(0, 0), None),
        ({"if-none-match": "W/ETAG"}, 304, slice(0, 0), None),
        ({"if-none-match": "*"}, 304, slice(0, 0), None),
    ],
)
def test_an_artifact_comes_whole_in_part_or_not_at_all(
    site: Site, asked: dict[str, str], status: int, part: slice, content_range: str | None
) -> None:
    digest = site.driven.stored("a", DATA, ArtifactKind.LOG).sha256
    headers = {name: value.replace("ETAG", f'"{digest}"') for name, value in asked.items()}
    answer = site.client.get(f"/api/v1/artifacts/{digest}", headers=headers)
    assert (answer.status_code, answer.content == DATA[part]) == (status, True)
    assert (answer.headers["etag"], answer.headers.get("content-range")) == (f'"{digest}"', content_range)
    repr_digest = base64.b64decode(answer.headers["repr-digest"].removeprefix("sha-256=").strip(":"))
    assert repr_digest == hashlib.sha256(DATA).digest()
    if status in (200, 206):
        assert answer.headers["content-length"] == str(len(DATA[part]))


def test_an_empty_file_has_no_part(site: Site) -> None:
    digest = site.driven.stored("a", b"", ArtifactKind.LOG).sha256
    assert site.client.get(f"/api/v1/artifacts/{digest}").content == b""
    assert site.client.get(f"/api/v1/artifacts/{digest}", headers={"range": "bytes=0-"}).status_code == 416


def test_packages_are_kept_by_caches_and_metadata_is_asked_for_each_time(site: Site) -> None:
    path = make_rpm(site.folder, "one")
    package = site.client.get(site.publish(path))
    assert package.content == path.read_bytes()
    assert (package.headers["cache-control"], package.headers["etag"]) == (
        "private, max-age=31536000, immutable",
        f'"{sha256(path)}"',
    )
    top = f"{OS}/current/repodata/repomd.xml"
    before = site.client.get(top)
    known = {"if-none-match": before.headers["etag"]}
    assert before.headers["cache-control"] == "private, no-cache"
    assert site.client.get(top, headers=known).status_code == 304
    site.publish(make_rpm(site.folder, "two"))
    after = site.client.get(top, headers=known)
    assert (after.status_code, after.content != before.content) == (200, True)
    head = site.client.head(top)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(after.content)))


@pytest.mark.parametrize(
    "path",
    [
        "state/ledger.db", "state/lock", "packages", "current", "current/", "current/repodata", "versions/1",
        "current/../state/ledger.db", "current/..%2fstate/ledger.db", "current/%2e%2e/state/ledger.db", "current//x",
        "current/repodata/none", "current/%00", "current/repodata/" + "x" * 300, "../../../../farm.db",
        "packages/.hidden",
    ],
)  # fmt: skip
def test_no_other_file_is_served(site: Site, path: str) -> None:
    site.publish(make_rpm(site.folder, "one"))
    raw = httpx.URL(f"{site.address}/", raw_path=f"{OS}/{path}".encode())
    answer = site.client.get(raw)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_link_out_of_the_folder_is_not_followed(site: Site) -> None:
    site.publish(make_rpm(site.folder, "one"))
    link = site.driven.settings.repositories_dir / "demo/x86_64/os/packages/out"
    link.symlink_to(site.driven.settings.data / "farm.db")
    assert site.client.get(f"{OS}/packages/out").status_code == 404


# --- dnf --------------------------------------------------------------------------------------------------------


def _package(folder: Path, version: str) -> Path:
    """A real package with one file."""
    (spec := folder / "greeting.spec").write_text(SPEC.format(version=version))
    top = folder / version
    command = ["rpmbuild", "-bb", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/db", str(spec)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (made,) = top.glob("RPMS/noarch/*.rpm")
    return made


def _dnf(root: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["dnf", "-qy", "--releasever=1", f"--installroot={root}", "--setopt=reposdir=/dev/null"]
    command += [f"--setopt=cachedir={root}/cache", f"--repofrompath=farm,{url}", "--repo=farm", "--nogpgcheck"]
    command += ["--setopt=metadata_expire=0", "--setopt=farm.retries=1", "--setopt=farm.skip_if_unavailable=0"]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=120, env=_ENV)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("dnf") is None, reason="dnf installs into a root as root")
def test_dnf_installs_with_and_without_a_login(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with driven_farm(tmp_path / "f", with_redis=False) as driven, served(driven.settings) as address:
        site = Site(driven, address, tmp_path)
        site.client.close()
        site.publish(_package(tmp_path, "1"))
        url, root = f"{address}{OS}/current/", tmp_path / "root"
        refused = _dnf(root, url, "install", "greeting")
        assert (refused.returncode != 0, "repomd.xml" in refused.stderr) == (True, True), refused.stderr
        login = ("--setopt=farm.username=token", f"--setopt=farm.password={site.token}")
        assert _dnf(root, url, *login, "install", "greeting").returncode == 0
        assert (root / "usr/share/greeting").read_text() == "1\n"
        site.publish(_package(tmp_path, "2"))
        done = _dnf(root, url, *login, "upgrade")
        assert (done.returncode, (root / "usr/share/greeting").read_text()) == (0, "2\n"), done.stderr
        anyone = Settings.from_env({**driven.env, "FARM_SERVER_ANONYMOUS": "1"})
        with served(anyone) as open_address:
            done = _dnf(tmp_path / "root2", f"{open_address}{OS}/current/", "install", "greeting")
        assert (done.returncode, (tmp_path / "root2/usr/share/greeting").read_text()) == (0, "2\n"), done.stderr
