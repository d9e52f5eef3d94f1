"""Limits: their spelling, their precedence, and their display."""

from typing import Any

import msgspec
import pytest

from farm.errors import BadRequest
from farm.formats.rpm.format import RpmFormat
from farm.model.arch import Arch
from farm.model.build import BuildOptions, BuildRequest
from farm.model.source import Source, SourceKind
from farm.model.target import LIMIT_RANGES, Limits, OwnLimits, PackageLimits, Target
from farm.service.limits import check_limits, limit_text, limit_words, parse_limits
from farm.service.request import check_request, make_options
from farm.steps.registry import step_type

TARGET = Target(
    name="mine",
    distribution="Mine",
    release="7",
    arches=(Arch.X86_64,),
    repositories=(),
    packages=("rpm-build",),
    limits=Limits(wall_s=100, silence_s=10, memory_bytes=2**30),
    package_limits=(
        PackageLimits(packages=("kernel", "kernel-rt"), limits=OwnLimits(wall_s=9000, memory_bytes=2**35)),
        PackageLimits(packages=("python3-*",), limits=OwnLimits(processes=99)),
        PackageLimits(packages=("*",), limits=OwnLimits(silence_s=77)),
    ),
)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("memory=8GiB", "memory_bytes", 8 * 2**30),
        ("memory=1.5G", "memory_bytes", 3 * 2**29),
        ("disk=2 TiB", "disk_bytes", 2**41),
        ("log=1048576", "log_bytes", 2**20),
        ("silence=2h", "silence_s", 7200),
        ("silence=90min", "silence_s", 5400),
        ("wall=1.5d", "wall_s", 129600),
        ("wall=30", "wall_s", 30),
        ("processes=500", "processes", 500),
    ],
)
def test_values_are_read_in_their_units(text: str, field: str, value: int) -> None:
    assert parse_limits([text]).given == {field: value}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["speed=9"], "use NAME=VALUE with one of wall, silence, log, memory, disk, files, processes"),
        (["memory"], "write memory=512MiB or 8GiB"),
        (["memory="], "write memory=512MiB or 8GiB"),
        (["memory=8GB"], "units are KiB, MiB, GiB and TiB"),
        (["memory=8h"], "write memory=512MiB or 8GiB"),
        (["memory=-1"], "write memory=512MiB"),
        (["memory=1e9"], "write memory=512MiB"),
        (["memory=0x9"], "write memory=512MiB"),
        (["silence=0.1s"], "write silence=90min or 2h"),
        (["silence=2GiB"], "write silence=90min or 2h"),
        (["processes=5k"], "write processes=500"),
        (["processes=0.5"], "write processes=500"),
        (["memory=1MiB"], "--limit memory=1MiB is out of range; use 16MiB to 1024TiB"),
        (["processes=4194305"], "use 16 to 4194304"),
        (["silence=8d"], "use 1s to 7d"),
        (["log=1GiB", "log=2GiB"], "--limit log is given twice"),
        (["\x1b[31m=1"], r"--limit '\x1b[31m=1'"),
    ],
)
def test_an_unknown_limit_is_answered_with_the_known_ones(texts: list[str], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_limits(texts)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"memory": 2**30}, "'memory' is not a limit; there are wall_s, silence_s,"),
        ({"memory_bytes": "8GiB"}, "memory_bytes is a whole number, and '8GiB' is none"),
        ({"processes": True}, "processes is a whole number"),
        ({"processes": 0}, "--limit processes=0 is out of range"),
        ({"log_bytes": 2**63}, "is out of range"),
    ],
)
def test_limits_from_python_are_checked_too(given: Any, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        make_options(RpmFormat(), limits=given)
    assert said in str(caught.value)


def test_a_value_is_shown_as_it_can_be_written() -> None:
    for field, value in {"memory_bytes": 3 * 2**29, "silence_s": 5400, "wall_s": 86400, "processes": 500}.items():
        assert parse_limits([limit_words(field, value)]).given == {field: value}
    assert (limit_text("wall_s", 86400), limit_text("silence_s", 61), limit_text("log_bytes", 1000)) == (
        "1d",
        "61s",
        "1000",
    )


def test_the_usual_limits_are_in_range() -> None:
    usual = {field: getattr(Limits(), field) for field in LIMIT_RANGES}
    assert check_limits(usual).over(TARGET.limits) == Limits()


def test_wall_is_another_word_for_timeout() -> None:
    assert make_options(RpmFormat(), limits={"wall_s": 60}) == BuildOptions(timeout_s=60)
    with pytest.raises(BadRequest, match="--timeout and --limit wall are the same"):
        make_options(RpmFormat(), limits={"wall_s": 60}, timeout_s=60)


def test_the_first_of_a_targets_packages_counts_and_alone() -> None:
    assert TARGET.limits_for("kernel") == Limits(wall_s=9000, silence_s=10, memory_bytes=2**35)
    assert TARGET.limits_for("python3-requests") == Limits(wall_s=100, silence_s=10, memory_bytes=2**30, processes=99)
    assert TARGET.limits_for("kernel-rt-extra").silence_s == 77
    assert TARGET.limits_for("Kernel").silence_s == 77, "names of packages have their case"


def test_a_builds_own_limits_beat_its_packages_which_beat_the_targets() -> None:
    options = make_options(RpmFormat(), limits={"memory_bytes": 2**33}, timeout_s=50)
    limits = step_type("build").limits(TARGET, "kernel", options)
    assert limits == Limits(wall_s=50, silence_s=10, memory_bytes=2**33)


def test_steps_before_the_build_have_the_limits_but_their_own_time() -> None:
    options = make_options(RpmFormat(), limits={"memory_bytes": 2**33}, timeout_s=50)
    for kind in ("fetch", "srpm"):
        assert step_type(kind).limits(TARGET, "kernel", options) == Limits(
            wall_s=3600, silence_s=10, memory_bytes=2**33
        )
    assert step_type("upload").limits(TARGET, "kernel", options) == TARGET.limits


def test_options_of_before_there_were_limits_still_decode() -> None:
    old = b'{"with_":["x"],"without":[],"defines":[["a","b"]],"timeout_s":9}'
    assert msgspec.json.decode(old, type=BuildOptions) == BuildOptions(with_=("x",), defines=(("a", "b"),), timeout_s=9)


def test_limits_survive_as_json() -> None:
    options = make_options(RpmFormat(), limits={"memory_bytes": 2**33})
    assert msgspec.json.decode(msgspec.json.encode(options), type=BuildOptions) == options
    assert msgspec.json.decode(msgspec.json.encode(TARGET), type=Target) == TARGET


def test_a_request_made_by_hand_has_its_limits_checked() -> None:
    source = Source(kind=SourceKind.GIT, url="https://example.org/a.git")
    good = BuildRequest(source=source, target="mine", options=BuildOptions(limits=OwnLimits(wall_s=60)))
    assert check_request(TARGET, good, uid=None).options == BuildOptions(timeout_s=60)
    bad = BuildRequest(source=source, target="mine", options=BuildOptions(limits=OwnLimits(processes=1)))
    with pytest.raises(BadRequest, match="processes=1 is out of range"):
        check_request(TARGET, bad, uid=None)
