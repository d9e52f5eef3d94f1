"""Reads the facts in the header of a source package that was made. All engines use it, outside of any root."""

from itertools import islice
from pathlib import Path

from farm.formats.rpm import rpmfile
from workers.core.text import shown
from workers.formats.base import SourceFacts


def read_facts(results: Path) -> tuple[SourceFacts | None, str | None]:
    """The facts of the one source package in a folder of results, or the problem with them.

    The farm's own reader with strict bounds reads them: rpm would need another command in the root.
    """
    found = list(islice(results.iterdir(), 2))
    if len(found) != 1 or found[0].is_symlink() or not found[0].is_file():
        return None, f"rpmbuild has to make one source package, and made {'several files' if found else 'none'}"
    if found[0].name.endswith(".nosrc.rpm"):
        return None, (
            f"the recipe has NoSource or NoPatch, so its source package is {rpmfile.NOSRC}; remove the NoSource tag, "
            f"or build it where the sources may be used"
        )
    try:
        tags = rpmfile.read_source_tags(found[0])
    except rpmfile.BadRpm as error:
        return None, f"the source package {shown(found[0].name)!r} {error}"
    facts = SourceFacts(
        identity=str(tags.nevra),
        requires=tags.requires,
        exclusive_arches=tags.exclusive_arches,
        exclude_arches=tags.exclude_arches,
        # The arch of the main package; rpm allows no other beside noarch.
        is_independent=tags.arch == "noarch",
    )
    return facts, None
