"""Whether a root meets a requirement, as rpm would say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.formats.rpm.capabilities import Capability, Provided, compare_evr, compare_version, overlap, unmet


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [
        # From rpm's own tests/rpmvercmp.at.
        ("1.0", "1.0", 0), ("1.0", "2.0", -1), ("2.0.1", "2.0.1a", -1),
        ("5.5p1", "5.5p10", -1), ("10xyz", "10.1xyz", -1),
        ("xyz10", "xyz10.1", -1), ("xyz.4", "8", -1), ("1.0010", "1.9", 1), ("1.05", "1.5", 0), ("4.999.9", "5.0", -1),
        ("20101121", "20101122", -1), ("2_0", "2.0", 0), ("a", "a+", 0),
        ("1.0~rc1", "1.0", -1), ("1.0~rc1", "1.0~rc2", -1),
        ("1.0~rc1~git123", "1.0~rc1", -1), ("1.0^", "1.0", 1), ("1.0^git1", "1.0^git2", -1), ("1.0^git1", "1.01", -1),
        ("1.0^20160101", "1.0.1", -1), ("1.0^20160102", "1.0^20160101^git1", 1), ("1.0~rc1^git1", "1.0~rc1", 1),
        ("1.0^git1~pre", "1.0^git1", -1),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_rpm_orders_them(left: str, right: str, order: int) -> None:
    assert compare_version(left, right) == order
    assert compare_version(right, left) == -order


@given(st.text(alphabet="019ab.~^-:_", max_size=20), st.text(alphabet="019ab.~^-:_", max_size=20))
def test_order_is_antisymmetric_whatever_a_recipe_writes(left: str, right: str) -> None:
    assert compare_evr(left, right) == -compare_evr(right, left)
    assert compare_evr(left, left) == 0


def test_a_million_digits_are_compared_at_once() -> None:
    assert compare_version("9" * 1_000_000, "1") == 1


def test_epochs_decide_and_releases_count_only_where_both_have_one() -> None:
    assert compare_evr("1:1.0-1", "2.0-1") == 1
    assert compare_evr("2.0-1", "2.0") == 0
    assert compare_evr("2.0-1", "2.0-2") == -1


@pytest.mark.parametrize(
    ("given_", "wanted", "meets"),
    [
        ("foo = 1.0-1", "foo", True), ("foo", "foo >= 9", True), ("foo = 1.0-1", "foo >= 1.0", True),
        ("foo = 1.0-1", "foo > 1.0", False), ("foo = 1.0-1", "foo < 2", True), ("foo = 1.0-1", "foo = 1.0-2", False),
        ("foo >= 2", "foo < 2", False), ("foo >= 2", "foo <= 2", True), ("foo = 1:1-1", "foo >= 5", True),
    ],
)  # fmt: skip
def test_ranges_overlap_as_rpm_says(given_: str, wanted: str, meets: bool) -> None:
    one, two = Capability.parse(given_), Capability.parse(wanted)
    assert one is not None
    assert two is not None
    assert overlap(one, two) is meets


def test_a_requirement_that_is_not_certainly_met_is_left_to_dnf() -> None:
    gcc = Capability(name="gcc", op="=", evr="12.2.0-14")
    provided = Provided(capabilities={"gcc": (gcc,)}, files=frozenset({"/usr/bin/sed"}))
    wanted = [
        "gcc >= 12",
        "gcc >= 13",
        "/usr/bin/sed",
        "/usr/bin/awk",
        "(gcc or clang)",
        "zlib-devel",
        "zlib-devel",
        "",
    ]
    assert unmet(wanted, provided) == ("", "(gcc or clang)", "/usr/bin/awk", "gcc >= 13", "zlib-devel")
