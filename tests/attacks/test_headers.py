"""Packages that a repository would refuse: found where they were built, as the package's failure and no host's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import BadSource, RootTrouble
from farm.formats.rpm import rpmfile
from farm.formats.rpm.entry import Refused, entry_of
from farm.model.outcome import Outcome
from farm.model.target import Limits
from tests.contexts import step_context
from tests.messages import work_of
from tests.rpms import make_rpm
from workers.core.collect import collect
from workers.core.context import Ended, StepContext
from workers.formats.rpm import package_reader, publishable, rpmbuild
from workers.formats.rpm.publishable import check_publishable
from workers.formats.rpm.results import checked_packages
from workers.steps import upload

SOURCE = "hello-1-1.src.rpm"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StepContext]:
    settings = Settings(data=tmp_path / "data")
    with step_context(settings, tmp_path, tmp_path / "log", limits=Limits(), log_bytes=10_000, wall_s=60) as context:
        yield context


@pytest.fixture
def left(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("summary", [b"a\x01b", b"\x1b[31mred", b"\xed\xa0\x80", b"a\x0bb"])
def test_a_package_with_a_header_that_cannot_be_said_is_the_builds_failure(
    left: Path, context: StepContext, summary: bytes
) -> None:
    """Beside one that is sound; and nothing of the build is stored."""
    make_rpm(left, "good")
    make_rpm(left, "hello", summary=summary)
    with pytest.raises(Ended) as refused:
        checked_packages(
            collect(left, ".rpm", limits=Limits(disk_bytes=2**20)), source=SOURCE, arch="x86_64", context=context
        )
    assert refused.value.outcome is Outcome.FAILED
    assert "hello-1-1.noarch.rpm" in refused.value.reason
    assert refused.value.reason.isprintable()
    assert not [path for path in context.settings.artifacts.rglob("*") if path.is_file()]


_WITH_A_FILE = """
%global debug_package %{nil}
Name: hello
Version: 1
Release: 1
Summary: x
License: MIT
BuildArch: noarch
%description
x
%install
mkdir -p %{buildroot}/usr/share/hello
touch "%{buildroot}/usr/share/hello/aXCurl error (28)"
%files
/usr/share/hello
"""


def test_a_file_name_that_makes_lines_of_its_own_is_refused(tmp_path: Path) -> None:
    """dnf names files in its errors, and the farm reads these line by line. rpmbuild takes no such name; a recipe may
    write it into the header afterwards."""
    (tmp_path / "hello.spec").write_text(_WITH_A_FILE)
    argv = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}", tmp_path / "hello.spec"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    (rpm,) = (tmp_path / "RPMS").rglob("*.rpm")
    entry_of(str(rpm), shown="it")
    for character in (b"\n", b"\r", b"\t"):
        rpm.write_bytes(rpm.read_bytes().replace(b"aXCurl", b"a" + character + b"Curl"))
        with pytest.raises(Refused, match="control character in its name"):
            entry_of(str(rpm), shown="it")
        rpm.write_bytes(rpm.read_bytes().replace(b"a" + character + b"Curl", b"aXCurl"))


def test_a_name_with_an_undefined_macro_is_the_builds_failure(left: Path, context: StepContext) -> None:
    make_rpm(left, "hello%{x}")
    with pytest.raises(Ended, match="with a macro that the target does not define"):
        checked_packages(
            collect(left, ".rpm", limits=Limits(disk_bytes=2**20)), source=SOURCE, arch="x86_64", context=context
        )


def test_a_file_that_a_recipe_closed_is_read_all_the_same(left: Path, context: StepContext) -> None:
    make_rpm(left).chmod(0o000)
    assert checked_packages(
        collect(left, ".rpm", limits=Limits(disk_bytes=2**20)), source=SOURCE, arch="x86_64", context=context
    )


def test_more_metadata_than_a_repository_takes_is_refused_in_words(
    left: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "names").write_bytes(b"\0".join(bytes(make_rpm(left, f"p{number}")) for number in range(6)))
    package_reader.main(["3000", str(tmp_path / "names")])
    sys.stdout.flush()
    said = capfdbinary.readouterr().out
    assert said.startswith(package_reader.REFUSED)
    assert b"more than 3000 bytes of metadata" in said


def test_a_reader_that_ends_without_an_answer_takes_nothing(
    left: Path, tmp_path: Path, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reader(tmp_path, "sys.exit(0)", monkeypatch)
    with pytest.raises(Ended, match="gave no reason"):
        check_publishable([make_rpm(left)], context)


def test_the_reader_imports_nothing_that_takes_longer_than_the_reading(tmp_path: Path, left: Path) -> None:
    (tmp_path / "names").write_bytes(bytes(make_rpm(left)))
    folders = os.pathsep.join(publishable._code_folders())
    argv = [
        sys.executable,
        "-X",
        "importtime",
        "-I",
        "-S",
        package_reader.__file__,
        folders,
        "9999",
        str(tmp_path / "names"),
    ]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=60)
    assert done.stdout == package_reader.TAKEN
    slow = ("json", "re", "typing", "pathlib", "dataclasses", "enum", "subprocess", "farm.errors", "farm.config")
    imported = {line.rpartition(b"|")[2].strip().decode() for line in done.stderr.splitlines()}
    assert imported & set(slow) == set()
    assert "farm.formats.rpm.entry" in imported


def _reader(folder: Path, end: str, monkeypatch: pytest.MonkeyPatch, *, is_ready: bool = True) -> None:
    """A reader that ends like this, once it has said that it is ready."""
    (folder / "reader").mkdir()
    program = folder / "reader/reader.py"
    said = f"sys.stderr.write({package_reader.READY!r}); sys.stderr.flush()" if is_ready else ""
    program.write_text(f"import os, signal, sys\n{said}\n{end}\n")
    monkeypatch.setattr(publishable, "_READER", program)


def _killed(number: str) -> str:
    return f"os.kill(os.getpid(), signal.{number})"


@pytest.mark.parametrize("end", [_killed("SIGSEGV"), _killed("SIGABRT"), _killed("SIGXCPU"), "sys.exit(1)"])
def test_a_header_that_brings_the_reader_down_is_the_builds_failure(
    left: Path, tmp_path: Path, context: StepContext, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    _reader(tmp_path, end, monkeypatch)
    with pytest.raises(Ended, match="header cannot be read") as refused:
        check_publishable([make_rpm(left)], context)
    assert refused.value.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("end", "is_ready"), [("sys.exit(1)", False), (_killed("SIGSEGV"), False), (_killed("SIGKILL"), True)]
)
def test_a_host_that_cannot_run_the_reader_blames_no_package(
    left: Path, tmp_path: Path, context: StepContext, monkeypatch: pytest.MonkeyPatch, end: str, is_ready: bool
) -> None:
    _reader(tmp_path, end, monkeypatch, is_ready=is_ready)
    with pytest.raises(RootTrouble):
        check_publishable([make_rpm(left)], context)


@pytest.mark.skipif(os.geteuid() != 0, reason="the reader has a view of its own where the worker is root")
def test_the_reader_has_nothing_of_the_host(
    left: Path, tmp_path: Path, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header that takes the reader over finds no file of the host that is not the farm's code, and no uid of its."""
    canary = tmp_path / "secret"
    canary.write_text("secret")
    said = f"open({str(canary)!r})"
    tries = [said, "open('/etc/shadow')", "open('/proc/sys/kernel/core_pattern', 'w')", "open('/usr/x', 'w')"]
    end = "\n".join(f"try:\n    {one}; sys.stdout.write('REACHED'); os._exit(0)\nexcept OSError: pass" for one in tries)
    answer = 'sys.stdout.write("the uid is the host\'s" if is_hosts else "taken")'
    uid_map = 'is_hosts = open("/proc/self/uid_map").read().split()[1] == "0"'
    _reader(tmp_path, f"{end}\n{uid_map}\n{answer}", monkeypatch)
    check_publishable([make_rpm(left)], context)


def test_a_repositorys_final_refusal_ends_the_build_and_counts_on_no_host(
    context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> object:
        raise BadSource("hello has a header that cannot be said in XML")

    monkeypatch.setattr(upload, "publish", refuse)
    with pytest.raises(Ended, match="refused by the repository: hello has a header") as refused:
        upload.run(work_of("upload"), context)
    assert refused.value.outcome is Outcome.FAILED


def test_more_build_requires_than_any_package_has_are_refused() -> None:
    with pytest.raises(rpmbuild.BadHeader, match="more than 100000"):
        rpmbuild.parse_requirements(b"\n".join(b"foo-%d" % number for number in range(100_001)))
    many = ("x",) * 100_001

    class Header:
        def texts(self, _: int) -> tuple[str, ...]:
            return many

        def numbers(self, _: int) -> tuple[int, ...]:
            return (0,) * len(many)

    with pytest.raises(rpmfile.BadRpm, match="has 100001 BuildRequires"):
        rpmfile._requirements(Header())  # type: ignore[arg-type]
