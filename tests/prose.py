"""Finds sentences in code and documentation whose form STYLE rules out; `python -m tests.prose PATH…` lists them.

Two regular expressions judge the form and nothing else. A reader has to judge whether a sentence is true and clear.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: A shorter text is a label, not a sentence.
MIN_WORDS = 4

#: A sentence has a noun as its subject; a relative clause or a bare "of the" in its place is read twice.
NO_NOUN = re.compile(
    r"(?:what|whatever|who|whoever|whom|whomever|whose|which|whichever|why|those|nor"
    r"|(?:all|only|nothing|much) (?:that|what|who)|that which"
    r"|of (?:the|a|an|all|any|each|every|its|it|one|several|these|this|those|them|two|what|which))\b",
    re.IGNORECASE,
)
#: Words for which English has a plain one ("no worker", "always", "must not", "is deleted", "again"), and
#: metaphors for which the field has a term ("runner", "cache", "host-tools sandbox").
NOT_PLAIN = re.compile(
    r"(?<!`)\b(?:nobody|no one|whoever|whomever|whosoever|for ever|anew"
    r"|heeds?|heeded|salvaged?|doors?|shelf|shelves|workshops?"
    r"|(?:is|are|was|were)(?: not| never| still| all)? to (?:be|come|do|get|go|have|stay))\b",
    re.IGNORECASE,
)

_SENTENCE_END = re.compile(r"""(?<=[.!?])["')`*]*\s+(?=["'(`*\[]*[A-Z0-9{])""")
_WORD = re.compile(r"[A-Za-z]{2,}|\b[aAI]\b")
_DIRECTIVE = re.compile(r"#\s*(?:noqa|type:|pragma|ruff|fmt|mypy|!)")
_MARKUP = re.compile(r"""^(?:[-*+>#|\s"'`(]|\d+\.\s|\[(?=[^\]]*\]\())+""")


@dataclass(frozen=True, kw_only=True)
class Sentence:
    path: Path
    line: int
    text: str

    @property
    def has_no_noun(self) -> bool:
        # A question may begin with the word that asks.
        return NO_NOUN.match(_MARKUP.sub("", self.text)) is not None and not self.text.rstrip(" \"')*").endswith("?")

    @property
    def is_not_plain(self) -> bool:
        return NOT_PLAIN.search(self.text) is not None


def sentences(path: Path) -> Iterator[Sentence]:
    """All sentences of MIN_WORDS words and more in this file, or in the files below this folder."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix == ".py":
            # The strings of tests are data, and not shown to users.
            yield from split(file, of_python(file.read_text(), with_strings="tests" not in file.parts))
        elif file.suffix == ".md":
            yield from split(file, of_markdown(file.read_text()))


def split(path: Path, texts: Iterable[tuple[int, str]]) -> Iterator[Sentence]:
    for line, text in texts:
        for sentence in _SENTENCE_END.split(" ".join(text.split())):
            if len(_WORD.findall(re.sub(r"`[^`]*`", "code", sentence))) >= MIN_WORDS:
                yield Sentence(path=path, line=line, text=sentence)


def of_python(source: str, *, with_strings: bool) -> Iterator[tuple[int, str]]:
    """Comments, docstrings by paragraph and, `with_strings`, the other strings of one line; long ones are messages."""
    yield from _comments(source)
    nodes = list(ast.walk(ast.parse(source)))
    docstrings, parts = set[ast.AST](), set[ast.AST]()
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(first.value)
        elif isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            if with_strings:
                yield (
                    node.lineno,
                    "".join(str(v.value) if isinstance(v, ast.Constant) else "{value}" for v in node.values),
                )
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            if node in docstrings:
                yield from _paragraphs(node.lineno, node.value)
            elif with_strings and "\n" not in node.value:
                yield node.lineno, node.value


def _comments(source: str) -> Iterator[tuple[int, str]]:
    start, column, block = 0, -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        line, at = token.start
        if not block or (line, at) != (start + len(block), column):
            if block:
                yield start, " ".join(block)
            start, column, block = line, at, []
        block.append(token.string.lstrip("#: "))
    if block:
        yield start, " ".join(block)


def _paragraphs(line: int, text: str) -> Iterator[tuple[int, str]]:
    for paragraph in re.split(r"\n[ \t]*\n|\n(?=[ \t]*[-*] )", text):
        yield line, paragraph
        line += paragraph.count("\n") + 2


def of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, list items, headings and the cells of tables; code blocks are left out."""
    is_code, start, block = False, 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("```"):
            is_code = not is_code
        is_prose = not (is_code or line.startswith(("```", "    ")))
        begins = (
            not is_prose or not line.strip() or line.startswith(("|", "#", "- ", "* ")) or re.match(r"\d+\. ", line)
        )
        if begins and block:
            yield start, " ".join(block)
            block = []
        if is_prose and line.startswith("|"):
            yield from ((number, cell.replace("\\|", "|").strip()) for cell in re.split(r"(?<!\\)\|", line))
        elif is_prose and line.strip():
            start = start if block else number
            block.append(line.strip())


def main(paths: list[str]) -> None:
    found = [sentence for path in paths for sentence in sentences(Path(path))]
    for sentence in found:
        marks = [
            mark for mark, is_met in (("no noun", sentence.has_no_noun), ("not plain", sentence.is_not_plain)) if is_met
        ]
        if marks:
            print(f"{sentence.path}:{sentence.line}: {', '.join(marks)}: {sentence.text}")
    no_noun, not_plain = sum(s.has_no_noun for s in found), sum(s.is_not_plain for s in found)
    print(f"{len(found)} sentences, {no_noun} no noun, {not_plain} not plain")


if __name__ == "__main__":
    main(sys.argv[1:])
