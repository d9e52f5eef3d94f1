"""Specs that read what is not in their commit: the clock, chance, git. Needs root."""

import re

import pytest

from farm.model.build import BuildOptions
from farm.model.source import Source, SourceKind
from tests.fetching import repository
from tests.line import LIMITS, Line

pytestmark = pytest.mark.live

_SPEC = """Name: sly
Version: {version}
Release: {release}
Summary: s
License: MIT
BuildArch: noarch
%description
s
%files
%changelog
* Thu Jan 01 2026 A <a@b.c> - %(date +%%s)
- x
"""

_CLOCK = "the spec reads its version or release from the clock"


def _run(line: Line, *, version: str = "1", release: str = "1", defines: tuple[tuple[str, str], ...] = ()) -> str:
    """The end and the reason, where the line stops."""
    text = _SPEC.format(version=version, release=release).encode()
    folder = repository(line.folder / "sly", {"sly.spec": text, "version.sh": b"git describe --tags\n"})
    source = Source(kind=SourceKind.GIT, url=f"file://{folder}", reader_uid=0)
    result = line.run(source, BuildOptions(defines=defines), LIMITS)
    return f"{line.ended_in} {result.outcome}: {result.reason}"


@pytest.mark.parametrize(
    "release",
    [
        "%(date +%%s)%{?dist}",
        "%(date +%%s)",
        "0.%(date -u +%%Y%%m%%d)",
        "%(/usr/bin/date +%%s)",
        "%{lua: print(os.date('%Y%m%d'))}",
        "%{lua: print(os.time())}",
        "%(head -c 8 /dev/urandom | od -An -tx8 | tr -d ' ')",
    ],
)
def test_a_release_from_the_clock_is_refused_in_words(line: Line, release: str) -> None:
    said = _run(line, release=release)
    found = re.match(f"srpm failed: {_CLOCK}: it is (sly-1-[^ ,]+), and later (sly-1-[^ ,]+),", said)
    assert found, said
    assert found[1] != found[2]
    assert len(found[1]) == len(found[2]), "rpm had an answer at the later time too"
    assert "give it with --define" in said


def test_a_call_of_git_with_another_way_out_is_not_blamed(line: Line) -> None:
    said = _run(line, version="%(git describe 2>/dev/null || echo 1)", release="%(date +%%s)")
    assert said.startswith(f"srpm failed: {_CLOCK}: it is sly-1-")


@pytest.mark.parametrize(
    ("release", "defines"),
    [
        ("%(date -u -d @86400 +%%Y%%m%%d)", ()),
        ("%{?stamp}%{!?stamp:%(date +%%s)}", (("stamp", "7"),)),
        ("%{lua: print(os.date('!%Y', 86400))}", ()),
    ],
)
def test_a_release_that_any_time_gives_is_built(line: Line, release: str, defines: tuple[tuple[str, str], ...]) -> None:
    assert _run(line, release=release, defines=defines) == "build succeeded: None"


@pytest.mark.parametrize(
    "version", ["%(git describe --tags)", "%(git describe 2>/dev/null)", "%(sh %{_sourcedir}/version.sh)"]
)
def test_a_version_from_git_gets_words_about_git(line: Line, version: str) -> None:
    said = _run(line, version=version)
    assert said.startswith(
        "fetch failed: the spec calls git, and where it is read there is neither git nor a repository"
    )
