"""Changes by others to the farm's repositories in a real Pulp, and many publishers at once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.pulp.local import LocalPulp
from farm.errors import RepositoryTrouble
from farm.repositories.base import RepositoryPackage
from tests.pulp_watch import NAME, Place, packages, place, publishers
from tests.waiting import until

THREADS, PROCESSES, EACH = 5, 4, 4


@pytest.fixture
def farm(pulp: LocalPulp, tmp_path: Path) -> Iterator[Place]:
    with place(pulp, tmp_path) as made:
        yield made


class Administrator:
    """Another user, who changes objects in Pulp and waits until they are changed."""

    def __init__(self, farm: Place) -> None:
        self._farm = farm

    def ask(self, method: str, path: str, **given: Any) -> Any:
        auth = (self._farm.pulp.username, self._farm.pulp.password)
        url = path if path.startswith("/pulp/") else f"/pulp/api/v3/{path}"
        answer = httpx.request(method, self._farm.pulp.url + url, auth=auth, timeout=30, **given).raise_for_status()
        until(lambda: not self._farm.unfinished(), "Pulp is not done")
        return answer.json() if answer.content else None

    def repository(self) -> Mapping[str, Any]:
        return self._one("repositories/rpm/rpm/", self._farm.repository)

    def distribution(self, last: str) -> Mapping[str, Any]:
        return self._one("distributions/rpm/rpm/", f"{self._farm.repository}/{last}")

    def _one(self, path: str, name: str) -> Mapping[str, Any]:
        (found,) = self.ask("GET", path, params={"name": name})["results"]
        return dict(found)


@pytest.fixture
def admin(farm: Place) -> Administrator:
    return Administrator(farm)


def test_a_deleted_repository_is_said_in_words_until_its_distribution_is_deleted_too(
    farm: Place, admin: Administrator, tmp_path: Path
) -> None:
    given = packages(tmp_path, "a")
    farm.backend.add(NAME, given)
    admin.ask("DELETE", admin.repository()["pulp_href"])
    for _ in range(2):
        with pytest.raises(RepositoryTrouble, match=f"{farm.repository!r} was deleted.*delete the distribution"):
            farm.backend.add(NAME, given)
    admin.ask("DELETE", admin.distribution("current")["pulp_href"])
    assert farm.backend.add(NAME, given) == 1
    farm.assert_well(given)


def test_deleted_distributions_are_made_again(farm: Place, admin: Administrator, tmp_path: Path) -> None:
    first, second = packages(tmp_path, "a"), packages(tmp_path, "b")
    farm.backend.add(NAME, first)
    admin.ask("DELETE", admin.distribution("current")["pulp_href"])
    number = farm.backend.add(NAME, second)
    farm.assert_well(first, second)
    admin.ask("DELETE", admin.distribution(str(number))["pulp_href"])
    assert farm.backend.add(NAME, second) == number
    farm.assert_well(first, second)


def test_a_distribution_that_was_turned_elsewhere_is_said_in_words(
    farm: Place, admin: Administrator, tmp_path: Path
) -> None:
    given, later = packages(tmp_path, "a"), packages(tmp_path, "b")
    farm.backend.add(NAME, given)
    current = admin.distribution("current")
    admin.ask("PATCH", current["pulp_href"], json={"base_path": f"{farm.repository}/elsewhere"})
    with pytest.raises(RepositoryTrouble, match=r"base path.*/elsewhere'.*retry"):
        farm.backend.add(NAME, later)
    admin.ask("PATCH", current["pulp_href"], json={"base_path": current["base_path"]})
    other = admin.ask("POST", "repositories/rpm/rpm/", json={"name": f"{farm.repository}-other"})
    admin.ask("PATCH", current["pulp_href"], json={"repository": other["pulp_href"]})
    with pytest.raises(RepositoryTrouble, match=r"serves another repository.*retry"):
        farm.backend.add(NAME, later)
    admin.ask("PATCH", current["pulp_href"], json={"repository": admin.repository()["pulp_href"]})
    farm.backend.add(NAME, later)
    farm.assert_well(given, later)


def test_versions_after_a_rollback_by_hand_build_on_it(farm: Place, admin: Administrator, tmp_path: Path) -> None:
    kept, gone, later = packages(tmp_path, "kept"), packages(tmp_path, "gone"), packages(tmp_path, "later")
    first = farm.backend.add(NAME, kept)
    farm.backend.add(NAME, gone)
    version = f"{admin.repository()['versions_href']}{first}/"
    (made,) = admin.ask("GET", "publications/rpm/rpm/", params={"repository_version": version})["results"]
    to = {"repository": None, "publication": made["pulp_href"]}
    admin.ask("PATCH", admin.distribution("current")["pulp_href"], json=to)
    number = farm.backend.add(NAME, later)
    farm.assert_well(kept, later)
    assert farm.backend.current(NAME) == number


def test_a_base_path_that_another_has_is_said_in_words(farm: Place, admin: Administrator, tmp_path: Path) -> None:
    given, base = packages(tmp_path, "a"), f"{farm.repository}/current"
    admin.ask("POST", "distributions/rpm/rpm/", json={"name": f"x-{farm.settings.pulp_prefix}", "base_path": base})
    with pytest.raises(RepositoryTrouble, match=rf"{base}.*another distribution.*FARM_PULP_PREFIX"):
        farm.backend.add(NAME, given)
    (other,) = admin.ask("GET", "distributions/rpm/rpm/", params={"base_path": base})["results"]
    admin.ask("DELETE", other["pulp_href"])
    farm.backend.add(NAME, given)
    farm.assert_well(given)


def assert_all_there(farm: Place, given: Sequence[Sequence[RepositoryPackage]], numbers: Sequence[int]) -> None:
    for one, number in zip(given, numbers, strict=True):
        assert {(package.filename, package.sha256) for package in one} <= set(farm.served(number))
    farm.assert_well(*given)


def test_twenty_additions_from_four_processes_are_a_handful_of_versions(farm: Place, tmp_path: Path) -> None:
    given = [packages(tmp_path, f"p{number}x", EACH) for number in range(THREADS * PROCESSES)]
    parts = [given[start : start + THREADS] for start in range(0, len(given), THREADS)]
    numbers = publishers([(farm.settings, part) for part in parts])
    assert_all_there(farm, given, [number for part in numbers for number in part])
    assert len(farm.versions()) < 10
    assert len(farm.publications()) < 10


def test_publishers_that_know_nothing_of_each_other_lose_nothing(farm: Place, tmp_path: Path) -> None:
    """Three farms, each with its own Redis or with one that is down, which keep as few versions as possible."""
    given = [packages(tmp_path, f"f{number}x", 2) for number in range(9)]
    parts = [given[start : start + 3] for start in range(0, len(given), 3)]
    farm.backend.add(NAME, [])
    jobs = [
        (farm.changed(broker_url=f"redis+socket://{tmp_path}/no-redis-{number}"), part)
        for number, part in enumerate(parts)
    ]
    numbers = publishers(jobs, keep=2)
    assert all(number > 0 for part in numbers for number in part)
    farm.assert_well(*given)
