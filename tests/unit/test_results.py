"""The results of a recipe are checked: no link is followed, no name is trusted, and every refusal is printable."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Limits, Target
from farm.model.work import PinnedRepository, Work
from farm.steps.build import BuildInput
from tests.artifacts import content_of
from tests.contexts import step_context
from tests.rpms import make_rpm
from workers.core.collect import collect, store_log
from workers.core.context import Ended, StepContext
from workers.formats.rpm.results import checked_packages, checked_source
from workers.steps.records import store_package, store_provenance

SOURCE = "hello-1-1.src.rpm"


@pytest.fixture
def left(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "noarch").mkdir(parents=True)
    return folder


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StepContext]:
    settings = Settings(data=tmp_path / "data")
    with step_context(settings, tmp_path, tmp_path / "log", limits=Limits(), log_bytes=10_000, wall_s=60) as context:
        yield context


def refusal(act: Callable[[], object]) -> str:
    """The one line with which it is refused: the package's failure, printable, of bounded length."""
    with pytest.raises(Ended) as refused:
        act()
    is_over = "--limit disk=" in refused.value.reason
    assert refused.value.outcome is (Outcome.OVER_LIMIT if is_over else Outcome.FAILED)
    assert refused.value.reason.isprintable()
    assert len(refused.value.reason) < 700
    return refused.value.reason


def collected(folder: Path, suffix: str = ".rpm", limit_bytes: int = 2**20) -> list[str]:
    return [found.name for found in collect(folder, suffix, limits=Limits(disk_bytes=limit_bytes))]


def test_packages_are_found_in_any_folder_in_the_order_of_their_names(left: Path) -> None:
    make_rpm(left / "noarch", "b")
    make_rpm(left, "a")
    (left / "empty.rpm").mkdir()
    assert collected(left) == ["a-1-1.noarch.rpm", "b-1-1.noarch.rpm"]


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _dangling(path: Path) -> None:
    path.symlink_to(path.name)


def _hard_link(path: Path) -> None:
    other = path.with_name("other-1-1.noarch.rpm")
    other.write_bytes(b"")
    path.hardlink_to(other)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        server.bind(path.name)
        os.chdir(before)


def _folder_link(path: Path) -> None:
    path.symlink_to("/usr", target_is_directory=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_link, "symbolic link"),
        (_dangling, "symbolic link"),
        (_folder_link, "symbolic link"),
        (_hard_link, "hard link"),
        (os.mkfifo, "named pipe"),
        (_socket, "socket"),
    ],
)
def test_anything_but_a_file_of_its_own_is_refused(left: Path, make: Callable[[Path], None], said: str) -> None:
    make(left / "noarch/x-1-1.noarch.rpm")
    assert said in refusal(lambda: collected(left))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused_and_not_opened(left: Path) -> None:
    os.mknod(left / "x-1-1.noarch.rpm", 0o020666, os.makedev(1, 5))
    assert "character device" in refusal(lambda: collected(left))


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline.rpm",
        b"\x1b]0;owned\x07\x1b[31m.rpm",
        b"latin-\xe9.rpm",
        "gnp.\u202empr.rpm".encode(),
        "caf\u00e9.rpm".encode(),
        b"no-package.txt",
        b"x.rpm.part",
        b"x" * 240 + b".txt",
        b"\x1b" * 240 + b".rpm",
    ],
)
def test_a_name_that_no_package_has_is_refused_and_can_be_shown(left: Path, name: bytes) -> None:
    Path(os.fsdecode(bytes(left) + b"/" + name)).write_bytes(b"")
    assert "only files named *.rpm belong there" in refusal(lambda: collected(left))


@pytest.mark.parametrize("name", ["-rf.rpm", "..rpm", ".hidden.rpm", "a'b\"c;$(id).rpm"])
def test_a_file_with_an_odd_name_is_refused_for_its_content(left: Path, context: StepContext, name: str) -> None:
    (left / name).write_bytes(b"no RPM")
    found = collect(left, ".rpm", limits=Limits(disk_bytes=100))
    assert "is not an RPM package" in refusal(
        lambda: checked_packages(found, source=SOURCE, arch="x86_64", context=context)
    )


def test_the_same_name_twice_is_refused(left: Path) -> None:
    make_rpm(left)
    make_rpm(left / "noarch", summary=b"another")
    assert "another folder has a file of that name" in refusal(lambda: collected(left))


def test_more_packages_than_the_limit_are_over_it_and_the_words_name_the_option(left: Path) -> None:
    for number in range(3):
        make_rpm(left / "noarch", f"p{number}")
    assert len(collect(left, ".rpm", limits=Limits(results=3))) == 3
    with pytest.raises(Ended, match=r"more than 2 packages, .*`results` in .limits.*--limit results=N") as refused:
        collect(left, ".rpm", limits=Limits(results=2))
    assert refused.value.outcome is Outcome.OVER_LIMIT


def test_too_many_folders_are_refused(left: Path) -> None:
    for number in range(70):
        (left / f"folder{number}").mkdir()
    with pytest.raises(Ended, match="more than 2 packages"):
        collect(left, ".rpm", limits=Limits(results=2))


def test_folders_of_any_depth_end_in_words(left: Path) -> None:
    """Deeper than Python recurses."""
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(left)
    try:
        for _ in range(1200):
            os.mkdir("d")  # noqa: PTH102 - by a path of one letter
            os.chdir("d")
    finally:
        os.fchdir(before)
        os.close(before)
    assert "deep" in refusal(lambda: collected(left))
    _remove_deep(left)


def _remove_deep(left: Path) -> None:
    """The test's own tree, which pytest's clean-up would not get through: half of it moved beside until it is flat."""
    top = left / "d"
    while top.exists():
        inner = top / "d"
        if inner.exists():
            inner.rename(left / "next")
        top.rmdir()
        if (left / "next").exists():
            (left / "next").rename(top)


def test_holes_count_as_bytes_since_they_are_read_as_such(left: Path) -> None:
    with (left / "huge-1-1.noarch.rpm").open("wb") as file:
        file.truncate(2**25)
    assert "disk limit of 1048576 bytes" in refusal(lambda: collected(left))


def test_honest_packages_are_stored_under_their_names(left: Path, context: StepContext) -> None:
    make_rpm(left / "noarch", "a")
    make_rpm(left, "b", arch="x86_64")
    found = collect(left, ".rpm", limits=Limits(disk_bytes=2**20))
    taken = checked_packages(found, source=SOURCE, arch="x86_64", context=context)
    stored = [store_package(one, ArtifactKind.RPM, context) for one in taken]
    assert [(one.name, one.kind, one.identity) for one in stored] == [
        ("a-1-1.noarch.rpm", ArtifactKind.RPM, "a-1-1.noarch"),
        ("b-1-1.x86_64.rpm", ArtifactKind.RPM, "b-1-1.x86_64"),
    ]


def test_a_result_of_holes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large-1-1.x86_64.rpm").open("wb") as file:
        file.truncate(2**40)
    assert "nearly all of them holes" in refusal(lambda: collect(tmp_path, ".rpm", limits=Limits(disk_bytes=2**50)))


@pytest.mark.parametrize(
    ("name", "arch", "source", "said"),
    [
        ("other-1-1.noarch.rpm", "noarch", SOURCE, "says that it is hello-1-1.noarch"),
        ("hello-1-1.aarch64.rpm", "aarch64", SOURCE, "is for aarch64, and this was a build for x86_64"),
        ("hello-1-1.noarch.rpm", "noarch", "bash-5-1.src.rpm", "built from 'hello-1-1.src.rpm', and this was a build"),
        ("hello-1-1.src.rpm", "src", SOURCE, "is not a binary package"),
    ],
)
def test_a_package_that_lies_is_refused(
    left: Path, context: StepContext, name: str, arch: str, source: str, said: str
) -> None:
    make_rpm(left, arch=arch).rename(left / name)
    found = collect(left, ".rpm", limits=Limits(disk_bytes=2**20))
    assert said in refusal(lambda: checked_packages(found, source=source, arch="x86_64", context=context))


def test_a_cut_package_and_none_at_all_are_refused(left: Path, context: StepContext) -> None:
    path = make_rpm(left)
    path.write_bytes(path.read_bytes()[:200])
    found = collect(left, ".rpm", limits=Limits(disk_bytes=2**20))
    assert "truncated" in refusal(lambda: checked_packages(found, source=SOURCE, arch="x86_64", context=context))
    assert "no package" in refusal(lambda: checked_packages((), source=SOURCE, arch="x86_64", context=context))


def test_one_source_package_is_stored_as_its_header_names_it(left: Path, context: StepContext) -> None:
    make_rpm(left, arch="src").rename(left / "whatever.src.rpm")
    taken = checked_source(collect(left, ".src.rpm", limits=Limits(disk_bytes=2**20)), context)
    stored, nevra = store_package(taken, ArtifactKind.SRPM, context), str(taken.identity)
    assert (stored.name, stored.kind, nevra) == (SOURCE, ArtifactKind.SRPM, "hello-1-1.src")


def test_no_source_package_two_or_a_binary_one_are_refused(left: Path, context: StepContext) -> None:
    def store() -> object:
        return checked_source(collect(left, ".src.rpm", limits=Limits(disk_bytes=2**20)), context)

    assert "made none" in refusal(store)
    make_rpm(left).rename(left / "binary.src.rpm")
    assert "'binary.src.rpm' is a binary RPM" in refusal(store)
    make_rpm(left, "other", arch="src")
    assert "made binary.src.rpm, other-1-1.src.rpm" in refusal(store)


def test_a_quick_log_is_stored_without_times(context: StepContext) -> None:
    context.log.note("quick")
    (log,) = store_log(context, "build.x86_64.log")
    assert (log.kind, log.name) == (ArtifactKind.LOG, "build.x86_64.log")
    assert content_of(context.store, log.sha256) == b"[farm] quick\n"


def test_a_slow_log_is_stored_with_the_times_of_its_lines(context: StepContext) -> None:
    context.log.note("slow")
    context.log.stamps = [(number, number * 2) for number in range(2_000)]
    _, times = store_log(context, "build.log")
    assert (times.name, times.kind) == ("build.log.times.json", ArtifactKind.RECORD)
    kept = msgspec.json.decode(content_of(context.store, times.sha256), type=list[tuple[int, int]])
    assert kept == context.log.stamps


def test_provenance_names_inputs_and_outputs(context: StepContext) -> None:
    srpm = Artifact(name=SOURCE, kind=ArtifactKind.SRPM, sha256="a" * 64, size_bytes=1, identity="hello-1-1.src")
    rpm = Artifact(
        name="hello-1-1.x86_64.rpm", kind=ArtifactKind.RPM, sha256="b" * 64, size_bytes=1, identity="hello-1-1.x86_64"
    )
    work = Work(
        attempt="12.build.x86_64.2",
        kind="build",
        build_id=12,
        package="hello",
        target=Target(
            name="demo", distribution="demo", release="1", arches=(Arch.X86_64,), repositories=(), packages=("bash",)
        ),
        options=BuildOptions(),
        limits=Limits(),
        input=BuildInput(
            srpm=srpm,
            identity="hello-1-1.src",
            build_requires=(),
            arch=Arch.X86_64,
            repositories=(PinnedRepository(name="farm-demo-x86_64", url="https://farm/4/", version=4),),
        ),
        target_sha256="c" * 64,
    )
    rounds = (("gcc",), ("gcc", "bc"))
    record = store_provenance(work, (rpm,), rounds, context)
    assert (record.name, record.kind) == ("provenance.json", ArtifactKind.RECORD)
    assert json.loads(content_of(context.store, record.sha256)) == {
        "format": 1,
        "attempt": "12.build.x86_64.2",
        "build": 12,
        "package": "hello",
        "project": "main",
        "target": "demo",
        "target_sha256": "c" * 64,
        "arch": "x86_64",
        "srpm": {"name": SOURCE, "nevra": "hello-1-1.src", "sha256": "a" * 64},
        "repositories": [{"name": "farm-demo-x86_64", "version": 4, "url": "https://farm/4/"}],
        "build_requires": [["gcc"], ["gcc", "bc"]],
        "packages": [{"name": "hello-1-1.x86_64.rpm", "nevra": "hello-1-1.x86_64", "sha256": "b" * 64}],
    }
    assert store_provenance(work, (rpm,), rounds, context) == record
