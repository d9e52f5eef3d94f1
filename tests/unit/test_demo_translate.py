"""Debian's names, versions and dependencies in RPM's words."""

import pytest

from deploy.demo.control import Relation, parse_relations, parse_stanza
from deploy.demo.errors import DemoError
from deploy.demo.translate import bounded, devel_names, package_evr, parse_evr, requirements

NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("debian", "rpm"),
    [
        ("2.36-9+deb12u10", "2.36-9+deb12u10"),
        ("1:1.2.13.dfsg-1", "1:1.2.13.dfsg-1"),
        ("252.39-1~deb12u2", "252.39-1~deb12u2"),
        ("1.0-rc1-3", "1.0.rc1-3"),
        ("5.7", "5.7-0"),
        ("4:12.2.0-3", "4:12.2.0-3"),
    ],
)
def test_a_package_version_becomes_an_evr(debian: str, rpm: str) -> None:
    assert str(package_evr(debian)) == rpm


def test_a_bound_without_revision_has_no_release() -> None:
    assert str(parse_evr("1:2.36")) == "1:2.36"


@pytest.mark.parametrize(
    ("debian", "rpm"),
    [
        ("libc6", "libc6"),
        ("libc6 (>= 2.34)", "libc6 >= 2.34"),
        ("libfoo (= 1:2.0-3)", "libfoo = 1:2.0-3"),
        ("perl:any", "perl"),
        ("python3:any (<< 3.12~)", "python3 < 3.12~"),
        ("libc6 (>> 2.36)", "libc6 >= 2.36"),
        ("libc6 (>> 2.36-2)", "libc6 > 2.36-2"),
        ("g++ (>= 4:12) [amd64]", "g++ >= 4:12"),
    ],
)
def test_a_dependency_keeps_its_bound(debian: str, rpm: str) -> None:
    assert requirements(parse_relations(debian), present=NOTHING) == (rpm,)


def test_alternatives_become_a_rich_dependency() -> None:
    groups = parse_relations("mawk | gawk (>= 1:5.0), sed")
    assert requirements(groups, present=NOTHING) == ("(mawk or gawk >= 1:5.0)", "sed")


def test_a_dependency_on_a_replaced_package_is_dropped_with_its_alternatives() -> None:
    groups = parse_relations("debconf (>= 0.5) | debconf-2.0, dpkg (>= 1.17),\n libc6")
    assert requirements(groups, present=frozenset({"debconf", "dpkg"})) == ("libc6",)


def test_a_dependency_is_named_once() -> None:
    assert requirements(parse_relations("zlib1g, zlib1g"), present=NOTHING) == ("zlib1g",)


def test_a_versioned_provide_is_kept() -> None:
    assert bounded(Relation(name="libtinfo-dev", operator="=", version="6.4-4")) == "libtinfo-dev = 6.4-4"


def test_an_unreadable_dependency_is_an_error_that_shows_it() -> None:
    with pytest.raises(DemoError, match="lib foo"):
        parse_relations("lib foo (>= 1)")


def test_development_packages_get_both_usual_names() -> None:
    assert devel_names("libbz2-dev") == ("libbz2-devel", "bz2-devel")
    assert devel_names("zlib1g-dev") == ("zlib1g-devel",)
    assert devel_names("bash") == ()


def test_a_stanza_keeps_the_lines_of_a_field() -> None:
    fields = parse_stanza("Package: sed\nDescription: stream editor\n First line.\n .\n Last line.\n")
    assert fields == {"Package": "sed", "Description": "stream editor\nFirst line.\n.\nLast line."}


def test_damaged_control_data_is_an_error() -> None:
    with pytest.raises(DemoError, match="neither a field"):
        parse_stanza("Package: sed\nnonsense\n")
