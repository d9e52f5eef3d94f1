"""The farm builds all that rpm of the target builds. A package that cannot be published fails before its upload."""

import os
import re
from pathlib import Path

import pytest

from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.work import AnyResult
from farm.steps.build import BuildResult
from tests.fetching import repository
from tests.line import LIMITS, Line

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
]

_LONG = "n" * 230
_TAGS = {
    b"Name": b"p",
    b"Version": b"1",
    b"Release": b"1",
    b"Summary": b"s",
    b"License": b"MIT",
    b"BuildArch": b"noarch",
}
_LENIENT = b"%define _invalid_encoding_terminates_build 0\n"


def _built(
    line: Line, folder: Path, tail: bytes = b"%files\n", head: bytes = b"", about: bytes = b"d", **tags: bytes
) -> AnyResult:
    lines = [b"%s: %s" % pair for pair in ({**_TAGS, **{name.encode(): text for name, text in tags.items()}}).items()]
    text = head + b"\n".join([*lines, b"%description", about, tail])
    url = str(repository(folder / "p", {"p.spec": text}))
    return line.run(Source(kind=SourceKind.GIT, url=url, reader_uid=os.getuid()), BuildOptions(), LIMITS)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"Release": b".1"}, "p-1-.1.noarch.rpm"),
        ({"Name": _LONG.encode()}, f"{_LONG}-1-1.noarch.rpm"),
        ({"Epoch": b"7", "Version": b"1~rc1^git2"}, "p-1~rc1^git2-1.noarch.rpm"),
    ],
    ids=["a release with a dot first", "a long name", "an epoch, tilde and caret"],
)
def test_names_that_rpm_takes_are_built(line: Line, tmp_path: Path, tags: dict[str, bytes], name: str) -> None:
    result = _built(line, tmp_path, **tags)
    assert isinstance(result.output, BuildResult), result.reason
    assert name in {artifact.name for artifact in result.artifacts}


@pytest.mark.parametrize(
    ("parts", "outcome", "step", "reason"),
    [
        ({"Provides": b"a\x01b"}, Outcome.FAILED, "build", "Provides.*control character 0x01"),
        ({"about": b"ab\xed\xa0\x80"}, Outcome.FAILED, "srpm", "%description.*0xed 0xa0 0x80"),
        ({"tail": b""}, Outcome.FAILED, "build", "made no package: the spec has no %files section"),
        ({"BuildConflicts": b"bash"}, Outcome.UNRESOLVABLE, "build", "bash conflicts with p-1-1"),
        (
            {"tail": b"%files\n%changelog\n* Thu Jan 01 2026 A <a@b> - 1-1\n- mend: ab\x01c\n"},
            Outcome.FAILED,
            "srpm",
            "%changelog",
        ),
    ],
    ids=["control character", "lone surrogate", "no package", "conflict", "changelog"],
)
def test_a_package_that_cannot_be_published_fails_before_it_is_uploaded(
    line: Line, tmp_path: Path, parts: dict[str, bytes], outcome: Outcome, step: str, reason: str
) -> None:
    result = _built(line, tmp_path, head=_LENIENT, **parts)
    assert (result.outcome, line.ended_in) == (outcome, step), result.reason
    assert re.search(reason, result.reason or ""), result.reason
