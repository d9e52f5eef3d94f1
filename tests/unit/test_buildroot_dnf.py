"""dnf's configuration for a target."""

import configparser
from dataclasses import replace
from pathlib import Path

import pytest

from farm.errors import RootTrouble
from farm.model.arch import Arch
from farm.model.target import RepositorySource, Target
from workers.formats.rpm.dnf import configuration, pinned_repositories, target_repositories, wanted_spec

TARGET = Target(
    name="t",
    distribution="t",
    release="9",
    arches=(Arch.X86_64, Arch.AARCH64),
    repositories=(
        RepositorySource(name="base", baseurl="file:///srv/a%20b/{arch}", gpgcheck=False),
        RepositorySource(name="extra", metalink="https://m.invalid/?arch={arch}", gpgkey="https://k.invalid/key"),
        RepositorySource(name="only-arm", baseurl="https://a.invalid/", arches=(Arch.AARCH64,)),
    ),
    packages=("bash",),
)


def test_each_repository_is_there_for_its_arches_with_its_url_filled_in() -> None:
    found = target_repositories(TARGET, Arch.X86_64)
    assert [one.name for one in found] == ["base", "extra"]
    assert found[0].folder == Path("/srv/a b/x86_64")
    assert (found[0].is_local, found[1].is_local) == (True, False)
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(configuration(TARGET, found))
    assert parsed["extra"]["metalink"] == "https://m.invalid/?arch=x86_64"
    assert (parsed["base"]["gpgcheck"], parsed["extra"]["gpgcheck"]) == ("0", "1")
    assert parsed["main"]["reposdir"] == "/dev/null"


def test_the_farms_own_repositories_win() -> None:
    (own,) = pinned_repositories([("farm", "file:///r/1")])
    assert int(dict(own.options)["priority"]) < 99


def test_each_repository_of_the_farm_goes_before_the_later_ones() -> None:
    found = pinned_repositories([(f"farm.{name}-x86_64", "file:///r/1") for name in ("perl", "base", "main")])
    assert [dict(one.options)["priority"] for one in found] == ["10", "11", "12"]


def test_of_a_repository_with_names_only_packages_of_these_names_are_taken() -> None:
    source = RepositorySource(
        name="own", baseurl="file:///r/1", gpgcheck=False, includes=("gcc", "a,b", "*", "gcc-c++")
    )
    (found,) = target_repositories(replace(TARGET, repositories=(source,)), Arch.X86_64)
    assert dict(found.options)["includepkgs"] == "gcc,gcc-c++"


@pytest.mark.parametrize(("name", "url"), [("a b", "file:///"), ("main", "file:///"), ("x", "file:///\ngpgcheck=0")])
def test_a_value_that_would_break_the_configuration_is_refused(name: str, url: str) -> None:
    with pytest.raises(RootTrouble, match=r"cannot stand|is not a name"):
        pinned_repositories([(name, url)])


def test_requirements_are_not_expanded_and_stay_on_their_line() -> None:
    assert "BuildRequires: a%%(touch x)\n" in wanted_spec(["a%(touch x)"])
    with pytest.raises(ValueError, match="printable"):
        wanted_spec(["a\n%(touch x)"])
