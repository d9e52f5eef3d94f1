"""The names of repositories: their paths never meet, and those of the default project are what they always were."""

from hypothesis import given
from hypothesis import strategies as st

from farm.errors import BadRequest
from farm.model.arch import Arch
from farm.repositories import DEFAULT_PROJECT, RepositoryKind, RepositoryName
from farm.repositories.checks import check_name

_WORDS = ("main", "demo", "source", "logs", "os", "debug", "x86_64", "current", "~main", "a", "packages")
_WORD = st.sampled_from(_WORDS) | st.text(max_size=4)


def names() -> st.SearchStrategy[RepositoryName]:
    kinds, arches = st.sampled_from(RepositoryKind), st.none() | st.sampled_from(Arch)
    return st.builds(RepositoryName, project=_WORD, target=_WORD, kind=kinds, arch=arches)


def is_refused(name: RepositoryName) -> bool:
    try:
        check_name(name)
    except BadRequest:
        return True
    return False


def test_the_default_project_has_the_addresses_that_it_always_had() -> None:
    assert DEFAULT_PROJECT == "main"
    paths = {
        RepositoryName(target="demo", kind=kind, arch=arch).path
        for kind, arch in (
            (RepositoryKind.BINARY, Arch.X86_64),
            (RepositoryKind.DEBUG, Arch.PPC64LE),
            (RepositoryKind.SOURCE, None),
            (RepositoryKind.LOGS, None),
        )
    }
    assert paths == {"demo/x86_64/os", "demo/ppc64le/debug", "demo/source", "demo/logs"}


def test_another_project_has_its_name_before_the_target() -> None:
    name = RepositoryName(project="perl", target="demo", kind=RepositoryKind.SOURCE)
    assert name.path == "~perl/demo/source"


@given(names(), names())
def test_two_repositories_are_never_at_one_path_and_never_one_in_the_other(
    one: RepositoryName, other: RepositoryName
) -> None:
    if one == other or is_refused(one) or is_refused(other):
        return
    assert one.path != other.path
    assert not one.path.startswith(f"{other.path}/")
    assert not other.path.startswith(f"{one.path}/")


@given(names())
def test_a_name_that_passes_is_a_harmless_path(name: RepositoryName) -> None:
    if is_refused(name):
        return
    assert name.path.isprintable()
    assert name.path.isascii()
    assert all(part not in ("", ".", "..") for part in name.path.split("/"))
