"""The arches of a request that a spec allows."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from farm.formats.rpm.format import RpmFormat
from farm.model.arch import Arch
from farm.state.machine import FanOut
from farm.steps.arches import plan_arches
from farm.steps.srpm import SrpmResult, rules_of
from tests.fake_workers import output_of

X86, ARM, PPC = Arch.X86_64, Arch.AARCH64, Arch.PPC64LE
IX86 = ("i386", "i486", "i586", "i686", "pentium3", "pentium4", "athlon", "geode")


def srpm(exclusive: tuple[str, ...] = (), exclude: tuple[str, ...] = (), *, noarch: bool = False) -> SrpmResult:
    result = output_of("srpm")
    assert isinstance(result, SrpmResult)
    return replace(result, exclusive_arches=exclusive, exclude_arches=exclude, noarch=noarch)


def plan(wanted: Sequence[Arch], made: SrpmResult, native: Sequence[Arch]) -> FanOut:
    return plan_arches(wanted, rules_of(made), native, RpmFormat())


@pytest.mark.parametrize(
    ("exclusive", "exclude", "left"),
    [
        ((), (), [X86, ARM, PPC]),
        (("x86_64",), (), [X86]),
        ((*IX86, "x86_64", "aarch64"), (), [X86, ARM]),
        (IX86, (), []),
        (("noarch",), (), []),
        ((), IX86, [X86, ARM, PPC]),
        ((), ("ppc64le", "noarch"), [X86, ARM]),
        (("x86_64", "ppc64le"), ("ppc64le",), [X86]),
        (("X86_64", "amd64"), (), []),
    ],
)
def test_a_package_is_built_where_its_spec_allows(
    exclusive: tuple[str, ...], exclude: tuple[str, ...], left: list[Arch]
) -> None:
    found = plan((X86, ARM, PPC), srpm(exclusive, exclude), ())
    assert list(found.covers) == left
    assert set(found.covers) | set(found.excluded) == {X86, ARM, PPC}


@pytest.mark.parametrize(
    ("exclusive", "native", "expected"),
    [
        ((), (), {X86: (X86, ARM, PPC)}),
        ((), (ARM,), {ARM: (X86, ARM, PPC)}),
        (("noarch",), (), {X86: (X86, ARM, PPC)}),
        (("ppc64le", "noarch"), (X86,), {PPC: (PPC,)}),
        (("s390x",), (X86,), {}),
    ],
)
def test_a_noarch_package_is_built_once_on_a_native_arch(
    exclusive: tuple[str, ...], native: tuple[Arch, ...], expected: dict[Arch, tuple[Arch, ...]]
) -> None:
    assert plan((X86, ARM, PPC), srpm(exclusive, noarch=True), native).covers == expected


def test_the_reason_is_printable_and_bounded_whatever_the_spec_says() -> None:
    reason = plan((X86,), srpm(("\x1b[31mevil\n", "a" * 10_000)), ()).excluded[X86]
    assert reason.isprintable()
    assert len(reason) < 300
