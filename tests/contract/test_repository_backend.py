"""What every repository back end does, as its callers and as dnf see it."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from farm.errors import BadRequest, BadSource, RepositoryTrouble
from farm.model.arch import Arch
from farm.repositories.base import RepositoryBackend, RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from tests.rpms import make_rpm, sha256

BACKENDS: dict[str, Callable[[Path], RepositoryBackend]] = {"directory": DirectoryRepositories}
NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
SOURCE = RepositoryName(target="demo", kind=RepositoryKind.SOURCE)

needs_dnf = pytest.mark.skipif(not (shutil.which("dnf") and shutil.which("rpmbuild")), reason="needs dnf and rpmbuild")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> RepositoryBackend:
    return BACKENDS[request.param](tmp_path / "a root + blank")


def package(path: Path) -> RepositoryPackage:
    return RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)


def dnf(tmp_path: Path, url: str, *arguments: str) -> list[str]:
    """The lines that dnf says about the repository, with no cache from before."""
    cache = tmp_path / "dnf-cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = ["dnf", "-q", "--releasever=1", f"--setopt=cachedir={cache}", "--setopt=reposdir=/dev/null"]
    command += [f"--repofrompath=farm,{url}", "--repo=farm", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


def rpmbuild(tmp_path: Path, spec: str) -> list[Path]:
    top = tmp_path / "rpmbuild"
    top.mkdir(exist_ok=True)
    (top / "a.spec").write_text(spec)
    command = ["rpmbuild", "-ba", "--quiet", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/db"]
    subprocess.run([*command, str(top / "a.spec")], check=True, capture_output=True, timeout=60, env={"HOME": str(top)})
    return sorted(top.rglob("*.rpm"))


def test_an_unused_repository_is_version_zero_and_empty(backend: RepositoryBackend) -> None:
    assert backend.current(NAME) == 0
    assert backend.add(NAME, []) == 0
    assert backend.url(NAME) != backend.url(NAME, 0)


def test_each_add_is_a_version_and_repeating_it_is_none(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two = package(make_rpm(tmp_path, "one")), package(make_rpm(tmp_path, "two"))
    assert backend.add(NAME, [one]) == 1
    assert backend.add(NAME, [two]) == 2
    assert backend.add(NAME, [one]) == 1
    assert backend.add(NAME, [one, two]) == 2
    assert backend.current(NAME) == 2


def test_repositories_have_versions_of_their_own(backend: RepositoryBackend, tmp_path: Path) -> None:
    backend.add(NAME, [package(make_rpm(tmp_path))])
    assert backend.current(SOURCE) == 0
    assert backend.current(RepositoryName(target="demo", kind=RepositoryKind.DEBUG, arch=Arch.X86_64)) == 0


def test_a_file_that_is_not_an_rpm_is_refused_and_changes_nothing(backend: RepositoryBackend, tmp_path: Path) -> None:
    good, bad = make_rpm(tmp_path, "good"), tmp_path / "bad-1-1.noarch.rpm"
    for content in (b"", b"not an RPM", good.read_bytes()[:200]):
        bad.write_bytes(content)
        with pytest.raises(BadSource, match="bad-1-1"):
            backend.add(NAME, [package(good), package(bad)])
    assert backend.current(NAME) == 0


@pytest.mark.parametrize(
    "filename",
    ["../evil-1-1.noarch.rpm", "a\n.rpm", "a.txt", ".rpm", "a b.rpm", "\x1b[2J.rpm", "-a.rpm", "a" * 252 + ".rpm"],
)
def test_a_file_name_that_no_rpm_has_is_refused(backend: RepositoryBackend, tmp_path: Path, filename: str) -> None:
    path = make_rpm(tmp_path)
    with pytest.raises(BadSource) as refused:
        backend.add(NAME, [RepositoryPackage(path=path, sha256=sha256(path), filename=filename)])
    assert str(refused.value).isprintable()


def test_one_name_with_two_contents_in_one_call_is_refused(backend: RepositoryBackend, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(BadSource, match="twice"):
        backend.add(NAME, [package(make_rpm(tmp_path)), package(make_rpm(other, summary=b"other"))])


def test_a_file_that_is_not_what_the_caller_says_is_trouble(backend: RepositoryBackend, tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    with pytest.raises(RepositoryTrouble, match="store it again"):
        backend.add(NAME, [RepositoryPackage(path=path, sha256="0" * 64, filename=path.name)])
    with pytest.raises(RepositoryTrouble, match="is not there"):
        backend.add(NAME, [RepositoryPackage(path=tmp_path / "missing", sha256="0" * 64, filename=path.name)])


@pytest.mark.parametrize("target", ["", "..", "a/b", "/", "a\nb"])
def test_a_target_that_is_no_folder_name_is_refused(backend: RepositoryBackend, target: str) -> None:
    with pytest.raises(BadRequest):
        backend.current(RepositoryName(target=target, kind=RepositoryKind.SOURCE))


@needs_dnf
def test_dnf_reads_every_version_and_the_newest(backend: RepositoryBackend, tmp_path: Path) -> None:
    def names(version: int | None) -> Sequence[str]:
        return dnf(tmp_path, backend.url(NAME, version), "repoquery", "--qf", "%{name}")

    assert names(None) == []
    for number, name in enumerate(("one", "two"), start=1):
        assert backend.add(NAME, [package(make_rpm(tmp_path, name))]) == number
    assert [names(0), names(1), names(2), names(None)] == [[], ["one"], ["one", "two"], ["one", "two"]]


@needs_dnf
def test_dnf_downloads_what_rpmbuild_made(backend: RepositoryBackend, tmp_path: Path) -> None:
    spec = (
        "Name: real\nVersion: 1~rc1^git\nRelease: 1\nEpoch: 2\nSummary: größer <&>\nLicense: MIT\nBuildArch: noarch\n"
        "%description\nx\n%package c++\nSummary: y\n%description c++\ny\n%install\n"
        "mkdir -p %{buildroot}/opt/real; echo hi > '%{buildroot}/opt/real/a b'\n%files\n/opt/real\n%files c++\n"
    )
    built = rpmbuild(tmp_path, spec)
    binary = [path for path in built if not path.name.endswith(".src.rpm")]
    source = [path for path in built if path.name.endswith(".src.rpm")]
    backend.add(NAME, [package(path) for path in binary])
    backend.add(SOURCE, [package(path) for path in source])
    for name, paths in ((NAME, binary), (SOURCE, source)):
        into = tmp_path / f"got-{name.kind}"
        option = ["--source"] if name is SOURCE else []
        dnf(tmp_path, backend.url(name), "download", *option, f"--destdir={into}", "real*")
        assert {path.name: sha256(path) for path in into.iterdir()} == {path.name: sha256(path) for path in paths}
    assert dnf(tmp_path, backend.url(NAME), "repoquery", "--qf", "%{name}", "--file", "/opt/real/a b") == ["real"]
    assert dnf(tmp_path, backend.url(NAME), "repoquery", "--qf", "%{evr}", "real") == ["2:1~rc1^git-1"]
