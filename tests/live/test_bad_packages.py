"""Every bad package through real fetch, srpm and build steps: its outcome, its reason, its leftovers."""

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.errors import LeaseLost
from farm.model.artifact import ArtifactKind
from farm.model.outcome import Outcome
from farm.model.work import AnyResult
from tests.leftovers import inside
from tests.line import LIMITS, Line, leftovers
from tests.packages import make_srpm
from tests.promises import Stopwatch
from tests.rpms import make_rpm
from workers.isolation import cgroups
from workers.isolation.cgroups import CgroupKind

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
]


def said(result: AnyResult) -> str:
    """The reason: one line that can be shown anywhere, as must be what goes with it."""
    assert result.reason
    assert result.reason.isprintable()
    assert len(result.reason) <= 400
    assert all(part.isprintable() for part in (result.excerpt or "").split("\n"))
    return result.reason


@pytest.mark.parametrize(
    ("name", "step", "reason"),
    [
        ("no-spec", "fetch", r"no spec in the tree"),
        ("two-specs", "fetch", r"one\.spec, two\.spec"),
        ("missing-source", "fetch", r"never-uploaded-1\.0\.tar\.gz"),
        ("does-not-parse", "fetch", r"line 7: Unknown tag: Nonsense"),
        ("fails-prep", "build", r"patch does not apply.*greeting\.txt"),
        ("fails-build", "build", r"broken\.c:3:12: error: .undeclared_name. undeclared"),
        ("fails-install", "build", r"cannot stat 'never-made\.txt'"),
        ("fails-check", "build", r"FAIL: test_answer"),
        ("unpackaged-files", "build", r"unpackaged: /usr/share/unpackaged-files/forgotten, .*/overlooked"),
        ("missing-file", "build", r"File not found: /usr/share/missing-file/absent"),
        ("arch-in-noarch", "build", r"Arch dependent binaries in noarch package"),
    ],
)
def test_a_package_that_fails_says_where_and_why(line: Line, name: str, step: str, reason: str) -> None:
    result = line.git(name)
    assert (result.outcome, line.ended_in, result.output) == (Outcome.FAILED, step, None)
    assert re.search(reason, said(result))
    assert f"[farm] {step} of bad".encode() in line.log
    assert result.excerpt, "the lines around it"


def test_a_requirement_without_a_provider_is_named(line: Line) -> None:
    result = line.git("unresolvable")
    assert (result.outcome, said(result)) == (
        Outcome.UNRESOLVABLE,
        "nothing provides no-such-library-devel >= 4.2",
    )


def test_a_package_for_other_arches_is_excluded(line: Line) -> None:
    result = line.git("exclusivearch-other")
    assert (result.outcome, said(result)) == (Outcome.EXCLUDED, "Architecture is not included: x86_64")


def _whole(folder: Path) -> bytes:
    return make_srpm("hello-c", folder).read_bytes()


def _binary_rpm(folder: Path) -> bytes:
    return make_rpm(folder).read_bytes()


def _no_payload(folder: Path) -> bytes:
    return make_rpm(folder, arch="src").read_bytes()


def _damaged(folder: Path) -> bytes:
    whole = _whole(folder)
    return whole[:-20] + bytes(20)


@pytest.mark.parametrize(
    ("content", "step", "reason"),
    [
        (lambda folder: b"\x1b[31mno RPM", "fetch", "is not an RPM package"),
        (lambda folder: _whole(folder)[:-500], "fetch", "is truncated: it has"),
        (lambda folder: _whole(folder)[:50], "fetch", "is truncated: it has 50 bytes"),
        (_damaged, "fetch", "is damaged or truncated: its payload's sha256 is"),
        (_binary_rpm, "fetch", "is a binary RPM, not a src.rpm"),
        (_no_payload, "srpm", r"source\.src\.rpm cannot be installed"),
    ],
    ids=["no rpm", "cut", "cut short", "damaged", "binary", "hollow"],
)
def test_a_file_that_is_no_whole_source_package_is_refused(
    line: Line, tmp_path: Path, content: Callable[[Path], bytes], step: str, reason: str
) -> None:
    (tmp_path / "made").mkdir()
    path = tmp_path / "given\x1b[2J.src.rpm"
    path.write_bytes(content(tmp_path / "made"))
    result = line.srpm(path)
    assert (result.outcome, line.ended_in) == (Outcome.FAILED, step)
    assert re.search(reason, said(result))


def test_a_stopped_build_is_gone_within_two_seconds_and_stores_nothing_of_it(line: Line) -> None:
    """Also shows that this file's look at what is left would see a build."""
    stop = threading.Event()
    thread = threading.Thread(target=_stopped, args=(line, stop))
    thread.start()
    deadline = time.monotonic() + 30
    while line.ended_in != "build" or not (seen := inside(line.settings)):
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    left = leftovers(line.settings)
    watch = Stopwatch()
    stop.set()
    thread.join()
    assert watch.within(2)
    assert str(seen[0]) in left
    assert any("/farm-" in thing for thing in left) or cgroups.place().kind is CgroupKind.NONE
    assert line.log.startswith(b"[farm] srpm of"), "the last log that was stored"


def _stopped(line: Line, stop: threading.Event) -> None:
    line.stop = stop
    with pytest.raises(LeaseLost):
        line.git("never-ends")


def test_a_log_is_cut_with_a_marker_and_a_build_that_ends_well_has_still_succeeded(line: Line) -> None:
    result = line.git("floods-log", defines=(("flood_mib", "2"),))
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    assert line.log.endswith(b"the log reached its limit of 1048576 bytes; the rest is not kept\n")
    assert len(line.log) < LIMITS.log_bytes + 200


def test_the_network_is_not_there(line: Line) -> None:
    result = line.git("tries-network")
    assert result.outcome is Outcome.FAILED
    assert "builds have no network" in said(result)
    assert re.findall(rb"^REACHED.*$", line.log, re.MULTILINE) == []


@pytest.mark.parametrize("name", ["reads-outside", "writes-outside"])
def test_the_host_is_neither_read_nor_written(line: Line, name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    canary.chmod(0o666)
    result = line.git(name, defines=(("canary", str(canary)),))
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    assert re.findall(rb"^REACHED.*$", line.log, re.MULTILINE) == []
    assert canary.read_text() == "as it was"
    assert not list(tmp_path.glob("canary.*"))


def test_evil_names_among_the_results_are_refused_and_stored_nowhere(line: Line) -> None:
    result = line.git("evil-names")
    assert (result.outcome, line.ended_in) == (Outcome.FAILED, "build")
    assert "among its results" in said(result)
    kinds = {artifact.kind for artifact in result.artifacts}
    assert kinds == {ArtifactKind.LOG, ArtifactKind.RECORD}, "its log and its root are kept, its packages are not"
    assert result.peak_memory_bytes


@pytest.mark.parametrize(
    "shell",
    [
        "ln -s /etc/shadow x.src.rpm",
        "ln -s /builddir/out/elsewhere sly-1-1.src.rpm",
        "touch x.src.rpm",
        "truncate -s 200M x.src.rpm y.src.rpm",
        "mkdir -p a/b/c/d/e/f/g/h/i/j",
        "mkfifo x.src.rpm",
    ],
)
def test_a_spec_that_meddles_with_its_source_package_is_refused(line: Line, shell: str) -> None:
    """Reading a spec runs it, so there may be things among the results before rpmbuild writes there."""
    result = line.spec(head=f"%global sly %(cd /builddir/results 2>/dev/null && {shell} 2>&1)")
    assert (result.outcome, line.ended_in) == (Outcome.FAILED, "srpm"), line.log.decode(errors="replace")
    assert re.search("make one source package, and made|among its results", said(result))
    assert ArtifactKind.SRPM not in {artifact.kind for artifact in result.artifacts}


@pytest.mark.parametrize(
    ("macro", "step", "reason"),
    [
        ("_srcrpmdir /tmp", "srpm", "wrote /tmp/sly-1-1.src.rpm and not into .*: the spec sets _srcrpmdir or _topdir"),
        ("_rpmdir /tmp", "build", "wrote /tmp/sly-1-1.noarch.rpm and not into .*: the spec sets _rpmdir, _topdir or"),
        ("_build_name_fmt odd.rpm", "build", "'odd.rpm' says that it is sly-1-1.noarch, .*; _build_name_fmt must"),
    ],
)
def test_a_spec_that_moves_its_packages_is_told_which_macro_does_it(
    line: Line, macro: str, step: str, reason: str
) -> None:
    result = line.spec(head=f"%define {macro}")
    assert (result.outcome, line.ended_in) == (Outcome.FAILED, step), line.log.decode(errors="replace")
    assert re.search(reason, said(result))


def test_a_spec_with_control_characters_is_told_that_it_has_some(line: Line) -> None:
    result = line.spec(head="# \x1b[1m")
    assert (result.outcome, line.ended_in) == (Outcome.FAILED, "srpm"), line.log.decode(errors="replace")
    assert re.search("does not appear to be a specfile. It has bytes that no text has near its start", said(result))


_OTHER = """sed 's/@/%%/' > other.spec <<'END'
Name: bash
Version: 99
Release: 1
Summary: s
License: MIT
BuildArch: noarch
@description
s
@files
END
rpmbuild -bb --define '_topdir /tmp/other' --define '_rpmdir /builddir/results' other.spec"""


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_OTHER, "says that it was built from 'bash-99-1.src.rpm', and this was a build of 'sly-1-1.src.rpm'"),
        ("cd /builddir/results; for _ in $(seq 50); do mkdir d; cd d; done", "folders among its results"),
        ("cd /builddir/results; seq -f f%%.0f.rpm 21000 | xargs touch", "made more than 20000 packages"),
        ("truncate -s 250M /builddir/results/x.rpm /builddir/results/y.rpm", "nearly all of them holes"),
        ("cp /usr/lib/os-release /builddir/results/a.rpm", "'a.rpm' is not an RPM package"),
    ],
    ids=["another's package", "deep", "many", "holes", "no package"],
)
def test_a_build_that_meddles_with_its_results_is_refused(line: Line, build: str, reason: str) -> None:
    result = line.spec(build=build)
    outcome = Outcome.OVER_LIMIT if "20000" in reason else Outcome.FAILED
    assert (result.outcome, line.ended_in) == (outcome, "build"), line.log.decode(errors="replace")
    assert reason in said(result)


def test_processes_that_a_build_leaves_are_killed_before_its_results_are_read(line: Line) -> None:
    result = line.spec(build="(setsid sh -c 'while :; do : > /builddir/results/late.rpm; sleep 0.01; done' &) &")
    assert result.outcome in (Outcome.SUCCEEDED, Outcome.FAILED)
    assert line.ended_in == "build"


def test_a_spec_in_latin_1_builds(line: Line) -> None:
    assert line.git("non-utf8-spec").outcome is Outcome.SUCCEEDED


def test_odd_bytes_are_kept_in_the_log_and_shown_escaped(line: Line) -> None:
    result = line.git("non-utf8-log")
    assert said(result) == r"main.c:1:1: error: caf\xe9 \x1b[2J\u202eevil"
    assert b"latin-1: caf\xe9\nno UTF-8: \xff\xfe\xc0\x80\xed\xa0\x80\ncolour: \x1b[31mred" in line.log


def test_the_line_still_builds_good_packages(line: Line) -> None:
    result = line.git("hello-c")
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    names = sorted(artifact.name for artifact in result.artifacts if artifact.kind is ArtifactKind.RPM)
    assert names == [f"hello-c-{part}1.0-1.demo1.x86_64.rpm" for part in ("", "debuginfo-", "debugsource-")]
