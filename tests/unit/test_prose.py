"""How many sentences of code and documentation have a form that STYLE rules out, at most, area by area."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests import prose
from tests.prose import Sentence

ROOT = Path(__file__).parents[2]
WORST_SHOWN = 15


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Percent of an area's sentences, for each form. A ceiling may be lowered, but not raised; the aim is 0.5."""

    no_noun: float
    not_plain: float


#: A file belongs to the area with the longest path that it is below.
CEILINGS = {
    "README.md": Ceiling(no_noun=0.5, not_plain=0.5),
    "docs": Ceiling(no_noun=0.5, not_plain=0.5),
    "CHANGES": Ceiling(no_noun=0.5, not_plain=0.5),
    "farm": Ceiling(no_noun=0.0, not_plain=0.0),
    "farm/formats": Ceiling(no_noun=5.6, not_plain=1.2),
    "farm/repositories": Ceiling(no_noun=0.5, not_plain=0.5),
    "workers": Ceiling(no_noun=0.3, not_plain=0.1),
    "deploy": Ceiling(no_noun=0.0, not_plain=0.0),
    "tests": Ceiling(no_noun=0.2, not_plain=0.1),
}


def _area_of(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return max((area for area in CEILINGS if name == area or name.startswith(f"{area}/")), key=len)


@cache
def _in_area(area: str) -> list[Sentence]:
    return [sentence for sentence in prose.sentences(ROOT / area) if _area_of(sentence.path) == area]


def _excess(found: list[Sentence], is_met: Callable[[Sentence], bool], ceiling: float) -> str:
    """An empty text while the ceiling holds; else the share, the worst files and the first sentences of those."""
    met = [sentence for sentence in found if is_met(sentence)]
    share = 100 * len(met) / max(1, len(found))
    if share <= ceiling:
        return ""
    files = Counter(sentence.path for sentence in met)
    met.sort(key=lambda sentence: (-files[sentence.path], sentence.path, sentence.line))
    shown = [f"{s.path.relative_to(ROOT)}:{s.line}: {s.text}" for s in met[:WORST_SHOWN]]
    return "\n".join([f"{share:.2f}% of {len(found)} sentences, more than {ceiling}%; {len(met)} in all:", *shown])


@pytest.mark.parametrize("area", CEILINGS)
def test_sentences_have_a_noun_as_subject_and_plain_words(area: str) -> None:
    found, ceiling = _in_area(area), CEILINGS[area]
    assert found, "the area has no sentences: was its folder renamed?"
    assert not _excess(found, lambda sentence: sentence.has_no_noun, ceiling.no_noun)
    assert not _excess(found, lambda sentence: sentence.is_not_plain, ceiling.not_plain)


def _sentence(text: str) -> Sentence:
    return Sentence(path=ROOT / "README.md", line=1, text=text)


@pytest.mark.parametrize(
    "text",
    [
        "What nobody took is sent again.",
        "Who loses the lease stops.",
        "Whoever reaches Redis commands the farm.",
        "Those heard of within 30 s, by name.",
        "Of the last attempt of each step.",
        "Nor does it believe the report.",
        "- **What a package does is the package's.**",
        "`Whose` is quoted, and whose log it is.",
        "(Why a worker that is fit gets nothing.)",
        "All that has begun, when there is no `before`.",
    ],
)
def test_a_sentence_without_a_noun_is_found(text: str) -> None:
    assert _sentence(text).has_no_noun


@pytest.mark.parametrize(
    "text",
    [
        "The scheduler sends the message again.",
        "If the call raises, nothing has been written.",
        "Offers and leases are deleted.",
        "Whole listings are cached.",
        "What does the farm promise?",
        "Northern mirrors come first, which the client wants.",
        "Offices of the farm are closed.",
        "Allow what the target allows.",
    ],
)
def test_a_sentence_with_a_noun_is_not_found(text: str) -> None:
    assert not _sentence(text).has_no_noun


@pytest.mark.parametrize(
    "text",
    [
        "The file is kept, and nobody reads it.",
        "The step is given to whoever asks.",
        "Tasks are kept for ever.",
        "The attempt is to be closed.",
        "Two rooms are never to be shared.",
        "The template is made anew.",
        "The version is to go.",
        "Each step comes in through one door.",
    ],
)
def test_words_that_are_not_plain_are_found(text: str) -> None:
    assert _sentence(text).is_not_plain


@pytest.mark.parametrize(
    "text",
    [
        "The scheduler is to the left of Redis.",
        "The user `nobody-else` reads the file.",
        "A request that names no user has the rights of `nobody`.",
        "The limit is 8 to 16 MiB.",
    ],
)
def test_plain_words_are_not_found(text: str) -> None:
    assert not _sentence(text).is_not_plain


def _texts(path: str, pieces: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(sentence.line, sentence.text) for sentence in prose.split(Path(path), pieces)]


PYTHON = '''"""A module docstring of words.

What a second paragraph says is found.
"""
#: A comment goes on
#: over two lines here. It has two sentences.
x = 1  # noqa: S101 a directive is not prose


def f(name):
    """Short."""
    raise ValueError(f"the {name} of this farm is wrong")


y = "who reads this is told"
z = "/one/word"
'''


def test_python_gives_comments_docstrings_and_messages() -> None:
    assert sorted(_texts("a.py", prose.of_python(PYTHON, with_strings=True))) == [
        (1, "A module docstring of words."),
        (3, "What a second paragraph says is found."),
        (5, "A comment goes on over two lines here."),
        (5, "It has two sentences."),
        (12, "the {value} of this farm is wrong"),
        (15, "who reads this is told"),
    ]
    assert len(_texts("a.py", prose.of_python(PYTHON, with_strings=False))) == 4


MARKDOWN = """# A heading of four words

A paragraph goes on
over two lines. Its second sentence follows.

    What is code is left out here

```
What is code is left out here
```

| who reads this table | `one` | what a cell says here |
|---|---|---|

- an item of a list
- whoever reads the next item
  goes on here
"""


def test_markdown_gives_paragraphs_items_and_cells() -> None:
    assert _texts("a.md", prose.of_markdown(MARKDOWN)) == [
        (1, "# A heading of four words"),
        (3, "A paragraph goes on over two lines."),
        (3, "Its second sentence follows."),
        (12, "who reads this table"),
        (12, "what a cell says here"),
        (15, "- an item of a list"),
        (16, "- whoever reads the next item goes on here"),
    ]


def test_an_exceeded_ceiling_is_shown_with_the_worst_places() -> None:
    found = [_sentence("What nobody took is sent again."), *[_sentence("The scheduler sends it again.")] * 99]
    assert not _excess(found, lambda sentence: sentence.has_no_noun, 1.0)
    text = _excess(found, lambda sentence: sentence.has_no_noun, 0.5)
    assert text.startswith("1.00% of 100 sentences, more than 0.5%")
    assert "README.md:1: What nobody took is sent again." in text
