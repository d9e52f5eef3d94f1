"""The package cache that a target's installations share, and packages of the farm whose scriptlets write to it."""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from plumbum import local

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import RootTrouble
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import RepositorySource, Target
from workers.core.context import Ended, StepContext
from workers.core.log import StepLog
from workers.core.process import PATH
from workers.formats.rpm import install as filling
from workers.formats.rpm.dnf import pinned_repositories, target_repositories
from workers.formats.rpm.install import DnfInstall
from workers.formats.rpm.plan import Plan
from workers.isolation.confine import confinement

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the native engine mounts overlays and needs root"),
]

_WITHIN_S = 300
_BAD = b"written by a scriptlet\n"
_POISONS = """\
Name: poisons
Version: 1
Release: 1
Summary: Writes to dnf's cache when it is installed
License: none
BuildArch: noarch
Requires(post): findutils
%description
Nothing.
%post
for root in "" /proc/[0-9]*/root /proc/[0-9]*/root/mnt/root; do
    echo written by a scriptlet > "$root/var/cache/dnf/poison"
done 2> /dev/null
find /var/cache/dnf -type f ! -name poison > /found
while read -r path; do echo written by a scriptlet > "$path"; done < /found
cat /var/cache/dnf/poison > /wrote
exit 0
%files
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


_HOGS = {
    "sleeps": "sleep 1000",
    "fills": "dd if=/dev/zero of=/large bs=1M count=200; sync /large; sleep 4; yes > /dev/null",
    "burns": "yes > /dev/null",
}
_HOG = """\
Name: {name}
Version: 1
Release: 1
Summary: Does not end when it is installed
License: none
BuildArch: noarch
Requires(post): coreutils
%description
Nothing.
%post
{script}
exit 0
%files
"""


@pytest.fixture(scope="module")
def poisons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the packages in it."""
    folder = tmp_path_factory.mktemp("poisons")
    specs = {"poisons": _POISONS} | {name: _HOG.format(name=name, script=script) for name, script in _HOGS.items()}
    words = ["-bb", "--quiet", "--define", f"_topdir {folder}/top", "--define", f"_rpmdir {folder}/made"]
    for name, spec in specs.items():
        (folder / f"{name}.spec").write_text(spec)
        local["rpmbuild"](*words, folder / f"{name}.spec", env={"PATH": PATH, "HOME": str(folder)})
    local["createrepo_c"]("--quiet", folder / "made")
    return folder / "made"


@dataclass
class SharedCache:
    """One target's installations in a data folder of their own."""

    settings: Settings
    target: Target
    log: Path
    numbers: Iterator[int] = field(default_factory=partial(count, 1))
    added: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.settings.cache / "dnf" / f"{self.target.name}-x86_64"

    def seen(self) -> dict[str, str]:
        """The cache's files with their digests."""
        paths = [path for path in self.cache.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def template(self) -> Path:
        with self._filling() as (filling, folder):
            repositories = target_repositories(self.target, Arch.X86_64)
            filling.install(self.target.packages, repositories, root=folder / "root", into=folder)
            return folder / "root"

    def layer(self, template: Path, wanted: str, pinned: Path) -> Path:
        with self._filling() as (filling, folder):
            repositories = pinned_repositories([("farm", pinned.as_uri())])
            repositories += target_repositories(self.target, Arch.X86_64)
            plan = filling.add((wanted,), repositories, lower=template, upper=folder / "root", into=folder)
            self.added = [package.identity for package in plan.packages]
            return folder / "root"

    @contextmanager
    def _filling(self) -> Iterator[tuple[DnfInstall, Path]]:
        number = next(self.numbers)
        folder = self.settings.data / f"filled-{number}"
        (folder / "root").mkdir(parents=True)
        with StepLog(self.log.with_name(f"log-{number}"), limit_bytes=2**20) as log:
            context = StepContext(
                attempt="1",
                workdir=folder,
                log=log,
                store=DirectoryStore(self.settings.artifacts),
                settings=self.settings,
                limits=self.target.limits,
                stop=threading.Event(),
                deadline=time.monotonic() + 120,
            )
            confined = confinement(self.settings, self.target)
            os.chown(folder / "root", confined.root_id, confined.root_id)
            yield DnfInstall(self.settings, self.target, Arch.X86_64, context, confined), folder
        assert {path.name for path in folder.iterdir()} == {"root"}


@pytest.fixture(params=["file", "http"])
def cache(request: pytest.FixtureRequest, demo_distribution: Path, tmp_path: Path) -> Iterator[SharedCache]:
    with _served(demo_distribution) as url:
        base = demo_distribution.as_uri() if request.param == "file" else url
        target = Target(
            name="demo",
            distribution="demo",
            release="1",
            arches=(Arch.X86_64,),
            repositories=(RepositorySource(name="demo", baseurl=f"{base}/{{arch}}", gpgcheck=False),),
            packages=("demo-build",),
        )
        yield SharedCache(settings=Settings(data=tmp_path / "data"), target=target, log=tmp_path / "log")
    shutil.rmtree(tmp_path)


def test_no_other_installation_sees_a_scriptlets_writes_to_the_cache(cache: SharedCache, poisons: Path) -> None:
    template = cache.template()
    before = cache.seen()
    assert any(name.endswith(".solv") for name in before), "what dnf made of the metadata is kept for the layers"
    evil = cache.layer(template, "poisons", poisons)
    assert [name for name in cache.added if name.startswith("poisons-")], "it is installed"
    found = (evil / "found").read_text()
    assert "repomd.xml" in found, "its scriptlet saw the cache"
    assert ".rpm" in found or "http" not in cache.target.repositories[0].baseurl
    assert (evil / "wrote").read_bytes() == _BAD, "and believes that it wrote there"
    after = cache.seen()
    assert hashlib.sha256(_BAD).hexdigest() not in after.values()
    assert not any(Path(name).name == "poison" for name in after)
    # The only new files are those that dnf itself fetched for the layer, and no file is missing.
    assert set(before) <= set(after)
    cache.layer(template, "bc", poisons)


@pytest.mark.parametrize("cache", ["file"], indirect=True)
@pytest.mark.parametrize(
    ("package", "limits", "outcome", "words"),
    [
        ("sleeps", {"silence_s": 6}, Outcome.STALLED, "wrote nothing and used no CPU for 6 s"),
        ("fills", {"disk_bytes": 100 * 2**20}, Outcome.OVER_LIMIT, "used more disk than"),
        ("burns", {}, Outcome.TIMED_OUT, "did not end within"),
    ],
)
def test_a_package_that_hangs_when_it_is_installed_ends_the_build_and_is_no_trouble(
    cache: SharedCache,
    poisons: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    limits: dict[str, int],
    outcome: Outcome,
    words: str,
) -> None:
    """Neither the host nor the farm is to blame for a package's requirements."""
    template = cache.template()
    monkeypatch.setattr(filling, "_LIMITS", replace(filling._LIMITS, **limits))
    if package == "burns":
        monkeypatch.setattr(filling, "_TIMEOUT_S", 10.0)
    with pytest.raises(Ended, match=f"installing its requirements {words}") as caught:
        cache.layer(template, package, poisons)
    assert caught.value.outcome is outcome


@pytest.mark.parametrize("cache", ["file"], indirect=True)
def test_a_dnf_that_hangs_before_anything_is_installed_is_trouble(
    cache: SharedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a repository is on a mount that hangs."""
    template = cache.template()
    (tmp_path / "hangs/repodata").mkdir(parents=True)
    os.mkfifo(tmp_path / "hangs/repodata/repomd.xml")
    monkeypatch.setattr(filling, "_LIMITS", replace(filling._LIMITS, silence_s=2))
    with pytest.raises(RootTrouble, match="filling the build root wrote nothing and used no CPU for 2 s"):
        cache.layer(template, "bc", tmp_path / "hangs")


def test_the_slots_of_a_host_fill_layers_side_by_side(
    cache: SharedCache, poisons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits in its install step until the other has come to its own."""
    template = cache.template()
    both, install = threading.Barrier(2), DnfInstall._install

    def wait_and_install(self: DnfInstall, *args: Any, **given: Any) -> Plan:
        both.wait(_WITHIN_S)
        return install(self, *args, **given)

    monkeypatch.setattr(DnfInstall, "_install", wait_and_install)
    with ThreadPoolExecutor(2) as pool:
        layers = [pool.submit(cache.layer, template, "bc", poisons) for _ in range(2)]
        assert [next(layer.result(_WITHIN_S).rglob("bin/bc")).name for layer in layers] == ["bc", "bc"]
