"""The package formats that this farm knows, by name. A new one is a folder beside this file, and a line here; or a
module of its own, which FARM_EXTENSIONS names and which calls `register`.
"""

from farm.extensions import load_extensions
from farm.formats.base import Format
from farm.formats.rpm.format import RpmFormat

_formats: dict[str, Format] = {}


def register(one: Format) -> None:
    """Make a format known to this process. Raises ValueError for a name that is taken."""
    if one.name in _formats:
        raise ValueError(f"there is a package format {one.name!r} already")
    _formats[one.name] = one


def names() -> tuple[str, ...]:
    """The names of all formats."""
    load_extensions()
    return tuple(_formats)


def format_of(name: str) -> Format:
    """The format of a target. Raises ValueError for one that is not known."""
    load_extensions()
    if name not in _formats:
        raise ValueError(f"{name[:64]!a} is no package format; this farm knows {', '.join(_formats)}")
    return _formats[name]


register(RpmFormat())
