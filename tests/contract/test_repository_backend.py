"""The contract of every repository back end, as its callers and as dnf see it."""

import multiprocessing
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from farm.errors import BadRequest, BadSource, LeaseLost, NotFound, RepositoryTrouble
from farm.model.arch import Arch
from farm.repositories.base import (
    RepositoryBackend,
    RepositoryFile,
    RepositoryKind,
    RepositoryName,
    RepositoryPackage,
)
from farm.repositories.pulp import PulpRepositories
from tests.repository_backends import LOGS, NAME, SOURCE, counts, dnf, package
from tests.rpms import make_rpm, sha256

DEADLINE_S = 120.0

needs_dnf = pytest.mark.skipif(not (shutil.which("dnf") and shutil.which("rpmbuild")), reason="needs dnf and rpmbuild")


def log(path: Path, name: str, content: bytes) -> RepositoryFile:
    path.write_bytes(content)
    return RepositoryFile(path=path, sha256=sha256(path), name=name, labels={"build": "12", "attempt": "12.build.1"})


def read(url: str) -> bytes:
    with urlopen(url, timeout=30) as answer:  # file:// or http://
        return bytes(answer.read())


def rpmbuild(tmp_path: Path, spec: str) -> list[Path]:
    top = tmp_path / "rpmbuild"
    top.mkdir(exist_ok=True)
    (top / "a.spec").write_text(spec)
    command = ["rpmbuild", "-ba", "--quiet", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/db"]
    subprocess.run([*command, str(top / "a.spec")], check=True, capture_output=True, timeout=60, env={"HOME": str(top)})
    return sorted(top.rglob("*.rpm"))


@pytest.mark.parametrize("is_known", [False, True])
def test_a_package_whose_header_names_another_file_is_refused(
    backend: RepositoryBackend, tmp_path: Path, is_known: bool
) -> None:
    path = make_rpm(tmp_path, "bash")
    if is_known:
        backend.add(NAME, [package(path)])
    before = backend.current(NAME)
    renamed = replace(package(path), filename="hello-1-1.noarch.rpm")
    with pytest.raises(BadSource, match=r"says in its header that it is 'bash-1-1\.noarch\.rpm'"):
        backend.add(NAME, [renamed])
    assert backend.current(NAME) == before


def test_packages_are_prepared_without_a_change_of_the_repository(backend: RepositoryBackend, tmp_path: Path) -> None:
    good = package(make_rpm(tmp_path, "prepared"))
    bad = package(make_rpm(tmp_path, "unprepared", summary=b"a\x01b"))
    backend.prepare(NAME, [good])
    with pytest.raises(BadSource, match="unprepared"):
        backend.prepare(NAME, [good, bad])
    assert backend.current(NAME) == 0
    assert backend.add(NAME, [good]) == 1
    backend.prepare(NAME, [good])
    assert backend.current(NAME) == 1


def test_a_source_package_is_named_as_its_header_says(backend: RepositoryBackend, tmp_path: Path) -> None:
    source = package(make_rpm(tmp_path, arch="src"))
    assert backend.add(SOURCE, [source]) == 1
    with pytest.raises(BadSource, match="says in its header"):
        backend.add(SOURCE, [replace(source, filename="hello-2-1.src.rpm")])


def test_a_back_end_says_which_packages_its_kept_versions_have(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, other, source = (
        package(make_rpm(tmp_path, name, arch=arch))
        # Packages of no other test: Pulp, which all tests share, keeps those that it has seen.
        for name, arch in (("kept-one", "noarch"), ("kept-two", "noarch"), ("kept-source", "src"))
    )
    assert backend.keeps([]) == frozenset()
    assert backend.keeps([one.sha256, other.sha256]) == frozenset()
    backend.add(NAME, [one])
    backend.add(SOURCE, [source])
    assert backend.keeps([one.sha256, other.sha256, source.sha256]) == {one.sha256, source.sha256}


def test_an_unused_repository_is_version_zero_and_empty(backend: RepositoryBackend) -> None:
    assert backend.current(NAME) == 0
    assert backend.add(NAME, []) == 0
    assert all(version.packages == 0 for version in backend.versions(NAME))


def test_each_add_is_a_version_and_repeating_it_is_none(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two = package(make_rpm(tmp_path, "one")), package(make_rpm(tmp_path, "two"))
    assert backend.add(NAME, [one]) == 1
    second = backend.add(NAME, [two])
    assert second > 1
    assert backend.add(NAME, [one]) in (1, second)
    assert backend.add(NAME, [one, two]) == second
    assert backend.current(NAME) == second
    assert backend.url(NAME, 1) != backend.url(NAME, second)


def test_versions_are_listed_newest_first_with_their_packages(backend: RepositoryBackend, tmp_path: Path) -> None:
    first = backend.add(NAME, [package(make_rpm(tmp_path, name)) for name in ("one", "two")])
    second = backend.add(NAME, [package(make_rpm(tmp_path, "three"))])
    newest, before, *older = backend.versions(NAME)
    assert [(newest.number, newest.packages, newest.is_current)] == [(second, 3, True)]
    assert [(before.number, before.packages, before.is_current)] == [(first, 2, False)]
    assert all(version.number < first and version.packages == 0 for version in older)
    assert newest.url == backend.url(NAME, second)
    assert newest.published_at >= before.published_at
    assert newest.published_at.tzinfo is not None


def test_a_rollback_is_a_new_version_with_the_old_content(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two = package(make_rpm(tmp_path, "one")), package(make_rpm(tmp_path, "two"))
    first, second = backend.add(NAME, [one]), backend.add(NAME, [two])
    third = backend.rollback(NAME, first)
    assert third > second
    assert backend.current(NAME) == third
    assert counts(backend)[third] == 1
    assert backend.rollback(NAME, first) == third, "the current version has that content already"
    assert backend.rollback(NAME, third) == third
    # Undone by rolling back to the version that was current before.
    fourth = backend.rollback(NAME, second)
    assert counts(backend)[fourth] == 2


def test_packages_added_after_a_rollback_build_on_it(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two, three = (package(make_rpm(tmp_path, name)) for name in ("one", "two", "three"))
    first = backend.add(NAME, [one])
    second = backend.add(NAME, [two])
    backend.rollback(NAME, first)
    version = backend.add(NAME, [three])
    assert counts(backend)[version] == 2
    # The same packages again become visible again, though an old version has them.
    again = backend.add(NAME, [two])
    assert again > second
    assert again == backend.current(NAME)
    assert counts(backend)[again] == 3


def test_a_rollback_to_a_version_that_is_not_kept_names_those_that_are(
    backend: RepositoryBackend, tmp_path: Path
) -> None:
    version = backend.add(NAME, [package(make_rpm(tmp_path, "one"))])
    with pytest.raises(NotFound, match=rf"\b{version}\b"):
        backend.rollback(NAME, version + 7)
    assert backend.current(NAME) == version


def test_old_versions_go_and_the_newest_stay(backend: RepositoryBackend, tmp_path: Path) -> None:
    made = [backend.add(NAME, [package(make_rpm(tmp_path, f"p{number}"))], keep=3) for number in range(6)]
    kept = [version.number for version in backend.versions(NAME)]
    assert kept[:3] == made[:2:-1]
    assert made[0] not in kept
    assert counts(backend)[made[-1]] == 6
    assert backend.add(NAME, [package(make_rpm(tmp_path, "p0"))], keep=3) == made[-1]
    with pytest.raises(NotFound):
        backend.rollback(NAME, made[0])


def test_one_version_beside_the_current_one_is_kept_at_least(backend: RepositoryBackend, tmp_path: Path) -> None:
    made = [backend.add(NAME, [package(make_rpm(tmp_path, f"p{number}"))], keep=1) for number in range(4)]
    assert [version.number for version in backend.versions(NAME)][:2] == made[:1:-1]


@pytest.mark.parametrize("epochs", [(None, 1), (2, 1), (1, None)])
def test_two_epochs_under_one_file_name_are_two_packages(
    backend: RepositoryBackend, tmp_path: Path, epochs: tuple[int | None, int | None]
) -> None:
    """Pulp keeps one package of a file name: the second one is refused in words, and the first one stays."""
    made = []
    for number, epoch in enumerate(epochs):
        (tmp_path / str(number)).mkdir()
        made.append(package(make_rpm(tmp_path / str(number), epoch=epoch)))
    backend.add(NAME, made[:1])
    if isinstance(backend, PulpRepositories):
        with pytest.raises(BadSource, match="is there with another epoch"):
            backend.add(NAME, made[1:])
    else:
        version = backend.add(NAME, made[1:])
        assert counts(backend)[version] == 2
    again = backend.add(NAME, [package(make_rpm(tmp_path, epoch=epochs[0], summary=b"another"))])
    left = epochs[: counts(backend)[again]]
    assert len({one.identity for one in backend.index(NAME, again)}) == len(left), "the same epoch is replaced"
    if shutil.which("dnf"):
        said = dnf(tmp_path, backend.url(NAME), "repoquery", "--qf", "%{epoch}")
        assert said == sorted(str(epoch or 0) for epoch in left)


def test_the_last_added_of_two_contents_of_one_nevra_is_there(backend: RepositoryBackend, tmp_path: Path) -> None:
    made = []
    for summary in ("first", "second"):
        (tmp_path / summary).mkdir()
        made.append(package(make_rpm(tmp_path / summary, summary=summary.encode())))
    versions = [backend.add(NAME, [one]) for one in (*made, made[0])]
    assert len(set(versions)) == 3
    assert counts(backend)[versions[-1]] == 1
    if shutil.which("dnf"):
        assert dnf(tmp_path, backend.url(NAME), "repoquery", "--qf", "%{summary}") == ["first"]


def _publish(backend: RepositoryBackend, given: Sequence[RepositoryPackage]) -> None:
    for one in given:
        version = backend.add(NAME, [one])
        assert version <= backend.current(NAME)


def test_two_processes_that_publish_one_repository_lose_nothing(backend: RepositoryBackend, tmp_path: Path) -> None:
    given = [[package(make_rpm(tmp_path, f"p{part}x{number}")) for number in range(4)] for part in range(2)]
    # Each process has a connection of its own: `backend` has made none yet.
    processes = [
        multiprocessing.get_context("fork").Process(target=_publish, args=(backend, part), daemon=True)
        for part in given
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes] == [0, 0]
    assert counts(backend)[backend.current(NAME)] == 8
    if shutil.which("dnf"):
        found = dnf(tmp_path, backend.url(NAME), "repoquery", "--qf", "%{name}")
        assert found == sorted(f"p{part}x{number}" for part in range(2) for number in range(4))


def test_an_add_that_is_stopped_is_over_and_a_repeat_completes_it(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, stop = package(make_rpm(tmp_path)), threading.Event()
    stop.set()
    with pytest.raises(LeaseLost):
        backend.add(NAME, [one], stop=stop)
    with pytest.raises(LeaseLost):
        backend.add_files(LOGS, [log(tmp_path / "l", "1/a.log", b"x")], stop=stop)
    assert backend.add(NAME, [one]) == backend.current(NAME)
    assert counts(backend)[backend.current(NAME)] == 1


def test_logs_are_read_below_the_url_that_is_given_back(backend: RepositoryBackend, tmp_path: Path) -> None:
    files = [
        log(tmp_path / "a", "12/build.x86_64.1/build.x86_64.log", b"all is well\n"),
        log(tmp_path / "b", "12/build.x86_64.1/root.json", b"[]"),
    ]
    url = backend.add_files(LOGS, files)
    assert [read(url + file.name) for file in files] == [b"all is well\n", b"[]"]
    assert backend.add_files(LOGS, files) == url
    later, empty = log(tmp_path / "c", "13/fetch.1/fetch.log", b"later"), log(tmp_path / "d", "13/fetch.1/no.log", b"")
    assert read(backend.add_files(LOGS, [empty, later]) + later.name) == b"later"
    assert read(url + files[0].name) == b"all is well\n"


def test_a_log_that_comes_again_with_other_content_replaces_the_old_one(
    backend: RepositoryBackend, tmp_path: Path
) -> None:
    name = "12/build.x86_64.1/build.x86_64.log"
    for content in (b"first", b"second", b"first"):
        url = backend.add_files(LOGS, [log(tmp_path / "a", name, content)])
        assert read(url + name) == content


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "1/../../a", "1//a", "1/.a", "a\nb", "1/\x1b[2J", "a" * 300]
)
def test_a_name_that_no_log_has_is_refused(backend: RepositoryBackend, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSource) as refused:
        backend.add_files(LOGS, [log(tmp_path / "a", name, b"x")])
    assert str(refused.value).isprintable()


def test_a_log_that_is_not_what_the_caller_says_is_trouble(backend: RepositoryBackend, tmp_path: Path) -> None:
    (path := tmp_path / "a").write_bytes(b"x")
    with pytest.raises(RepositoryTrouble, match="store it again"):
        backend.add_files(LOGS, [RepositoryFile(path=path, sha256="0" * 64, name="1/a.log")])


def test_packages_and_logs_go_to_repositories_of_their_kind(backend: RepositoryBackend, tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        backend.add(LOGS, [package(make_rpm(tmp_path))])
    with pytest.raises(BadRequest):
        backend.add_files(NAME, [log(tmp_path / "a", "1/a.log", b"x")])


def test_a_back_end_that_works_says_so(backend: RepositoryBackend) -> None:
    checks = backend.check()
    assert checks
    assert [check for check in checks if not check.is_ok] == []


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


@pytest.mark.parametrize("project", ["", "..", "a/b", "~a", "A", "a.b", "-a", "a\nb", "\x1b[2J", "a" * 65, "á"])
def test_a_project_that_is_no_folder_name_is_refused(backend: RepositoryBackend, project: str) -> None:
    with pytest.raises(BadRequest) as refused:
        backend.url(replace(SOURCE, project=project))
    assert str(refused.value).isprintable()


def test_a_repository_has_one_name(backend: RepositoryBackend) -> None:
    for name in (replace(NAME, arch=None), replace(SOURCE, arch=Arch.X86_64)):
        with pytest.raises(BadRequest, match="arch"):
            backend.current(name)


def test_repositories_of_two_projects_are_two(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two = package(make_rpm(tmp_path, "one")), package(make_rpm(tmp_path, "two"))
    # Names that would meet if a project were just one more folder.
    names = [replace(SOURCE, project="demo", target="source"), NAME, replace(NAME, project="demo", target="x86_64")]
    source = package(make_rpm(tmp_path, "three", arch="src"))
    for name, given in zip(names, (source, one, two), strict=True):
        backend.add(name, [given])
    assert [counts(backend, name)[backend.current(name)] for name in names] == [1, 1, 1]
    assert len({backend.url(name) for name in names}) == 3
    assert backend.keeps([one.sha256, two.sha256, source.sha256]) == {one.sha256, two.sha256, source.sha256}
    logs = replace(LOGS, project="demo")
    url = backend.add_files(logs, [log(tmp_path / "a", "12/a.log", b"x")])
    assert read(url + "12/a.log") == b"x"
    if shutil.which("dnf"):
        assert dnf(tmp_path, backend.url(names[2]), "repoquery", "--qf", "%{name}") == ["two"]


@needs_dnf
def test_dnf_reads_every_version_and_the_newest(backend: RepositoryBackend, tmp_path: Path) -> None:
    def names(version: int | None) -> Sequence[str]:
        return dnf(tmp_path, backend.url(NAME, version), "repoquery", "--qf", "%{name}")

    first, second = (backend.add(NAME, [package(make_rpm(tmp_path, name))]) for name in ("one", "two"))
    assert [names(first), names(second), names(None)] == [["one"], ["one", "two"], ["one", "two"]]
    backend.rollback(NAME, first)
    assert [names(second), names(None)] == [["one", "two"], ["one"]]


@needs_dnf
def test_dnf_downloads_the_packages_that_rpmbuild_made(backend: RepositoryBackend, tmp_path: Path) -> None:
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
