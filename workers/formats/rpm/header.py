"""What the source package that an engine made says of the build. One reader for every engine, outside of any root."""

from itertools import islice
from pathlib import Path

from farm.formats.rpm import rpmfile
from workers.core.text import shown
from workers.formats.rpm.engine import SrpmHeader


def read_header(results: Path) -> tuple[SrpmHeader | None, str | None]:
    """The header of the one source package in a folder of results, or what is wrong with them.

    By the farm's own reader, with strict bounds: asking rpm would take another command in the root.
    """
    found = list(islice(results.iterdir(), 2))
    if len(found) != 1 or found[0].is_symlink() or not found[0].is_file():
        return None, f"rpmbuild has to make one source package, and made {'several files' if found else 'none'}"
    try:
        tags = rpmfile.read_source_tags(found[0])
    except rpmfile.BadRpm as error:
        return None, f"the source package {shown(found[0].name)!r} {error}"
    header = SrpmHeader(
        nevra=str(tags.nevra),
        build_requires=tags.requires,
        exclusive_arches=tags.exclusive_arches,
        exclude_arches=tags.exclude_arches,
        binary_arches=(tags.arch,),
    )
    return header, None
