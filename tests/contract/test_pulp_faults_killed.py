"""Publishers that die at each moment of a publication, on a real Pulp: a plain repeat completes it."""

from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from deploy.pulp.local import LocalPulp
from farm.repositories.base import RepositoryPackage
from tests.pulp_watch import NAME, WITHIN_S, Place, caller, kill, packages, place, publisher
from tests.waiting import until

#: By what was going on: the request, and whether the publisher dies when it comes or when it was answered.
MOMENTS = {
    "during the look-up": ("GET", "/content/rpm/packages/", "came"),
    "during the upload": ("POST", "/packages/upload/", "came"),
    "between two uploads": ("POST", "/packages/upload/", "answered"),
    "before modify": ("POST", "/modify/", "came"),
    "after modify was asked for": ("POST", "/modify/", "answered"),
    "before the publication": ("POST", "/publications/", "came"),
    "after the publication was asked for": ("POST", "/publications/", "answered"),
    "before the version is served": ("POST", "/distributions/", "came"),
    "after the version is served": ("POST", "/distributions/", "answered"),
}


@pytest.fixture(scope="module")
def farm(pulp: LocalPulp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(pulp, tmp_path_factory.mktemp("farm")) as made:
        yield made


@pytest.fixture(scope="module")
def published(farm: Place, tmp_path_factory: pytest.TempPathFactory) -> list[RepositoryPackage]:
    """The content of the repository; each test adds to it."""
    first = packages(tmp_path_factory.mktemp("first"), "first")
    farm.backend.add(NAME, first)
    return first


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_repeat_needs_no_hand_after_a_publisher_was_killed(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path, moment: str
) -> None:
    given, before = packages(tmp_path, f"n{len(published)}x", 3), farm.served()
    versions, publications = farm.versions(), farm.publications()
    method, path, when = MOMENTS[moment]
    dying: list[BaseProcess] = []

    def die() -> None:
        until(lambda: dying, "the publisher was not started")
        kill(dying[0])

    {"came": farm.proxy.when_it_came, "answered": farm.proxy.when_it_was_answered}[when](method, path, die)
    dying.append(publisher(farm.settings, given))
    dying[0].join(WITHIN_S)
    assert dying[0].exitcode == -9, "the publisher was not killed at that moment"
    farm.let_locks_run_out()
    assert before <= farm.served(), "clients have lost something"

    number = farm.backend.add(NAME, given)
    published += given
    farm.assert_well(published)
    assert farm.versions() == [*versions, number], "a repeat made more versions than there were changes"
    # One more if the killed one's own is made while the repeat makes one: it is not visible before it is done.
    assert len(farm.publications()) - len(publications) in (1, 2)
    assert farm.backend.add(NAME, given) == number
    assert farm.versions()[-1] == number


#: In a copy that takes the place of a package, or in a removal.
CHANGING = {moment: MOMENTS[moment] for moment in MOMENTS if "upload" not in moment}


ALL = replace(NAME, project="all")
PRODUCT = replace(NAME, project="product")


@pytest.fixture(scope="module")
def copied(farm: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[str]]:
    """A version of the repository ALL, and its packages, of which PRODUCT has the first."""
    given = packages(tmp_path_factory.mktemp("all"), "one", 3)
    version, digests = farm.backend.add(ALL, given), [one.sha256 for one in given]
    farm.backend.copy(ALL, version, PRODUCT, digests[:1])
    return version, digests


@pytest.mark.parametrize("moment", CHANGING)
def test_a_repeat_completes_a_copy_and_a_removal_that_were_killed(
    farm: Place, copied: tuple[int, list[str]], moment: str
) -> None:
    """Each moment leaves the repository as it was."""
    version, wanted = copied
    assert farm.backend.copy(ALL, version, PRODUCT, wanted[:1]) == farm.backend.current(PRODUCT)

    def shown() -> list[str]:
        return sorted(one.sha256 for one in farm.backend.index(PRODUCT, farm.backend.current(PRODUCT)))

    for change, given_, before, after in (
        ("copy", (ALL, version, PRODUCT, wanted), wanted[:1], wanted),
        ("remove", (PRODUCT, wanted[1:]), wanted, wanted[:1]),
    ):
        method, path, when = CHANGING[moment]
        dying: list[BaseProcess] = []

        def die(dying: list[BaseProcess] = dying) -> None:
            until(lambda: dying, "the process was not started")
            kill(dying[0])

        {"came": farm.proxy.when_it_came, "answered": farm.proxy.when_it_was_answered}[when](method, path, die)
        dying.append(caller(farm.settings, change, given_))
        dying[0].join(WITHIN_S)
        assert dying[0].exitcode == -9, "the process was not killed at that moment"
        farm.let_locks_run_out()
        assert shown() in (sorted(before), sorted(after))
        number = getattr(farm.backend, change)(*given_)
        assert shown() == sorted(after)
        assert getattr(farm.backend, change)(*given_) == number == farm.backend.current(PRODUCT)


def test_a_first_use_that_was_killed_is_completed_by_a_repeat(pulp: LocalPulp, tmp_path: Path) -> None:
    given = packages(tmp_path, "a", 2)
    with place(pulp, tmp_path) as farm:
        for path in ("/repositories/rpm/rpm/$", "/publications/", "/distributions/"):
            dying: list[BaseProcess] = []

            def die(dying: list[BaseProcess] = dying) -> None:
                until(lambda: dying, "the publisher was not started")
                kill(dying[0])

            farm.proxy.when_it_was_answered("POST", path, die)
            dying.append(publisher(farm.settings, given))
            dying[0].join(WITHIN_S)
            assert dying[0].exitcode == -9
            farm.let_locks_run_out()
        assert farm.backend.add(NAME, given) == 1
        farm.assert_well(given)
