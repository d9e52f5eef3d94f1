"""The names by which people call a branch, a tag or a commit: what each stands for, and names that are near. Pure."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from farm.model.text import printable

_SHOWN = 10
_NEAR = 3
_COMPARED = 5000
_NAME_CHARS = 80
_HEADS = "refs/heads/"
_TAGS = "refs/tags/"
PEELED = "^{}"
ABBREVIATED = re.compile(r"[0-9a-fA-F]{4,63}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """`name` is the whole name of the ref. `also` are other refs that the same text may mean."""

    commit: str
    name: str
    is_annotated: bool
    also: tuple[str, ...] = ()


def candidates(ref: str) -> tuple[str, ...]:
    """The whole names that a text may mean, likely ones first: git's own order, then a remote's branch as a clone calls
    it (`origin/main`)."""
    if ref == "HEAD":
        return ("HEAD",)
    short = ref.removeprefix("refs/").removeprefix("remotes/")
    _, slash, branch = short.partition("/")
    is_remote = bool(slash) and not short.startswith(("heads/", "tags/"))
    of_remote = (f"{_HEADS}{branch}",) if is_remote and (ref != short or short.startswith("origin/")) else ()
    if ref.startswith("refs/"):
        return (ref, *of_remote)
    places = ("refs/tags/", "refs/heads/", "refs/", "refs/remotes/")
    return tuple(dict.fromkeys([*(f"{place}{ref}" for place in places), *of_remote]))


def find(ref: str, listed: Mapping[str, str]) -> Found | None:
    """The ref among those that the remote has. An annotated tag stands for its commit, not for its own id."""
    names = [name for name in candidates(ref) if name in listed]
    if not names:
        return None
    first = names[0]
    commit = listed.get(first + PEELED, listed[first])
    others = tuple(name for name in names[1:] if listed.get(name + PEELED, listed[name]) != commit)
    return Found(commit=commit, name=first, is_annotated=first + PEELED in listed, also=others)


def known(ref: str, listed: Iterable[str]) -> str:
    """The end of a message about a ref that does not exist: near names, then the names that there are."""
    names = [name for name in listed if not name.endswith(PEELED)]
    branches = sorted(name.removeprefix(_HEADS) for name in names if name.startswith(_HEADS))
    tags = sorted(name.removeprefix(_TAGS) for name in names if name.startswith(_TAGS))
    near = _near(ref, [*branches, *tags])
    parts = [f"did you mean {' or '.join(near)}?"] if near else []
    if branches:
        parts.append(f"known branches are {_some(branches)}")
    if tags:
        parts.append(f"known tags are {_some(tags)}")
    return "; ".join(parts)


def _near(ref: str, names: list[str]) -> list[str]:
    """Names that differ by a prefix, by case, or by a typing mistake."""
    asked, last = ref.lower(), ref.rpartition("/")[2].lower()
    alike = [name for name in names[:_COMPARED] if last and last == name.rpartition("/")[2].lower().removeprefix("v")]
    same = [name for name in names[:_COMPARED] if name.lower() in (asked, last, f"v{last}", last.removeprefix("v"))]
    lowered = {name.lower()[:_NAME_CHARS]: name for name in names[:_COMPARED]}
    close = [lowered[one] for one in difflib.get_close_matches(asked[:_NAME_CHARS], lowered, n=_NEAR, cutoff=0.75)]
    found = list(dict.fromkeys([*same, *alike, *close]))[:_NEAR]
    return [repr(printable(name[:_NAME_CHARS])) for name in found]


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name[:_NAME_CHARS]) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
