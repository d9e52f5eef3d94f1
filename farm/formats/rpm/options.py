"""The options of a request that RPM has: conditions (`--with`, `--without`) and macros (`--define`)."""

import re

from farm.errors import BadRequest
from farm.model.build import BuildOptions

_VALUE_MAX = 4096
# rpm's own rule (doDefine in rpmio/macro.c): a letter or underscore first, at least three characters.
_MACRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
_CONDITION_NAME = re.compile(r"[A-Za-z0-9_]+")


def check_options(options: BuildOptions) -> None:
    """Raises BadRequest, naming the option and what it takes."""
    for option, names in (("--with", options.with_), ("--without", options.without)):
        for name in names:
            if not _CONDITION_NAME.fullmatch(name):
                raise BadRequest(f"{option} {name!r} is not a condition's name; use letters, digits and underscores")
    if both := sorted(set(options.with_) & set(options.without)):
        raise BadRequest(f"{both[0]!r} is in both --with and --without; leave one of them out")
    for name, value in options.defines:
        check_define(name, value)


def check_define(name: str, value: str) -> None:
    """Raises BadRequest for what is no macro."""
    if not _MACRO_NAME.fullmatch(name):
        raise BadRequest(
            f"--define {name!r} is not a macro's name; use 'NAME VALUE' with three or more letters, digits, underscores"
        )
    if not value or len(value) > _VALUE_MAX or not value.replace("\t", " ").isprintable():
        raise BadRequest(f"--define {name} has no value, or one that is too long or unprintable; use 'NAME VALUE'")


def parse_define(text: str) -> tuple[str, str]:
    """`'NAME VALUE'`, as rpmbuild takes it. Raises BadRequest.

    >>> parse_define("dist .el9")
    ('dist', '.el9')
    """
    name, _, value = text.strip().partition(" ")
    check_define(name, value.strip())
    return name, value.strip()
