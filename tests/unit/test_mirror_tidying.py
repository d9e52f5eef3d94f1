"""When a mirror is packed: exactly where `git gc --auto` itself would begin."""

import hashlib
import subprocess
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from workers.sources.growth import is_untidy

_MIRROR = ["git", "-c", "gc.autoDetach=false", "-C"]


def _git(folder: Path, *words: str, given: str | None = None) -> str:
    done = subprocess.run([*_MIRROR, str(folder), *words], input=given, capture_output=True, text=True, check=True)
    return done.stderr


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "--bare", "--quiet", ".")
    return tmp_path


def _begins(mirror: Path) -> bool:
    """True if git says that it packs; the mirror is as it was if it does not."""
    return "packing" in _git(mirror, "gc", "--auto")


def test_loose_objects(mirror: Path) -> None:
    folder = mirror / "objects/17"
    folder.mkdir()
    texts = _texts_of_17()
    for text in islice(texts, 26):
        _git_blob(mirror, text)
    assert len(list(folder.iterdir())) == 26
    assert (is_untidy(mirror), _begins(mirror)) == (False, False)
    for text in islice(texts, 2):
        _git_blob(mirror, text)
    assert is_untidy(mirror)
    assert _begins(mirror)


def _texts_of_17() -> Iterator[str]:
    """Texts whose ids as blobs begin with 17."""
    for number in count():
        text = str(number)
        if hashlib.sha1(f"blob {len(text)}\0{text}".encode()).hexdigest().startswith("17"):
            yield text


def test_packs(mirror: Path) -> None:
    for number in range(51):
        blob = _git_blob(mirror, str(number))
        _git(mirror, "pack-objects", "--quiet", str(mirror / "objects/pack/pack"), given=f"{blob}\n")
        _git(mirror, "prune-packed")
        if number == 49:
            assert (is_untidy(mirror), _begins(mirror)) == (False, False)
    assert is_untidy(mirror)
    assert _begins(mirror)


def _git_blob(mirror: Path, text: str) -> str:
    words = [*_MIRROR, str(mirror), "hash-object", "-w", "--stdin"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout.strip()
