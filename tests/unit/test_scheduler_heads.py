"""The scheduler asks the back end only for what SQL does not know, and never takes silence for an empty repository."""

import pytest

from farm.errors import RepositoryTrouble
from farm.model.arch import Arch
from farm.repositories.base import RepositoryKind, RepositoryName
from farm.scheduler.heads import Heads
from farm.store.heads import Head

NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)


class Around:
    """A back end with one repository, and the records of it."""

    def __init__(self, version: int | None = 3, *, ask_every_s: float = 60.0) -> None:
        self.version = version
        self.asked = 0
        self.noted: list[tuple[str, Head, Head | None]] = []
        self.heads = Heads(self, self.note, ask_every_s=ask_every_s)  # type: ignore[arg-type]  # what heads use of one

    def current(self, _name: RepositoryName) -> int:
        self.asked += 1
        if self.version is None:
            raise RepositoryTrouble("no answer")
        return self.version

    def url(self, name: RepositoryName, version: int) -> str:
        return f"https://farm/{name.path}/{version}/"

    def note(self, path: str, head: Head, instead_of: Head | None) -> Head:
        self.noted.append((path, head, instead_of))
        return head


def head(version: int) -> Head:
    return Head(version=version, url=f"https://farm/{NAME.path}/{version}/")


def test_facts_in_sql_are_not_asked_for() -> None:
    around = Around()
    around.heads.read({NAME.path: head(7)})
    assert around.heads.get(NAME) == head(7)
    assert around.asked == 0


def test_an_unknown_fact_is_asked_for_once_and_recorded() -> None:
    around = Around()
    assert [around.heads.get(NAME) for _ in range(3)] == [head(3)] * 3
    assert around.asked == 1
    assert around.noted == [(NAME.path, head(3), None)]


def test_the_empty_repository_is_known_too() -> None:
    around = Around(0)
    assert [around.heads.get(NAME) for _ in range(2)] == [Head(version=0, url="")] * 2
    assert around.asked == 1


def test_a_back_end_that_does_not_answer_is_trouble_and_is_not_asked_for_every_build() -> None:
    around = Around(None)
    for _ in range(3):
        with pytest.raises(RepositoryTrouble, match="no answer"):
            around.heads.get(NAME)
    assert around.asked == 1
    assert around.noted == []


def test_it_is_asked_again_later() -> None:
    around = Around(None, ask_every_s=0.0)
    with pytest.raises(RepositoryTrouble):
        around.heads.get(NAME)
    around.version = 4
    assert around.heads.get(NAME) == head(4)


def test_a_head_that_is_doubted_is_asked_for_but_not_by_every_build() -> None:
    around = Around()
    around.heads.read({NAME.path: head(7)})
    assert [around.heads.get(NAME, is_doubted=True) for _ in range(3)] == [head(3)] * 3
    assert around.asked == 1
    assert around.noted == [(NAME.path, head(3), head(7))]


def test_a_head_that_is_doubted_is_better_than_none() -> None:
    around = Around(None)
    around.heads.read({NAME.path: head(7)})
    assert around.heads.get(NAME, is_doubted=True) == head(7)


def test_a_published_version_counts_at_once_and_a_dropped_one_is_asked_for() -> None:
    around = Around()
    around.heads.learn({NAME.path: head(9)})
    assert around.heads.get(NAME) == head(9)
    around.heads.learn({NAME.path: None})
    assert around.heads.get(NAME) == head(3)
    around.heads.learn({NAME.path: None})
    assert around.heads.get(NAME) == head(3)
