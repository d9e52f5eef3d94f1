"""Checks the packages that a recipe left. The files were collected by core/collect.py.

Everything about a package is hostile: its name, its header, its contents.
"""

from collections.abc import Iterator, Sequence

from farm.formats.rpm import rpmfile
from farm.formats.rpm.format import RpmFormat, identity_of
from farm.model.outcome import Outcome
from farm.repositories.checks import is_package_name
from workers.core.collect import Found
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.formats.base import Taken
from workers.formats.rpm.publishable import check_publishable

#: rpmbuild ends well without a package; a success that publishes nothing would hide a mistake.
_NO_PACKAGE = (
    "the build made no package: the spec has no %files section for this arch; add one, or name the arches that have "
    "one in ExclusiveArch"
)


def checked_source(found: Sequence[Found], context: StepContext) -> Taken:
    """The one source package. Raises Ended unless there is exactly one, and it is sound."""
    if len(found) != 1:
        names = ", ".join(shown(one.name) for one in found) or "none"
        raise Ended(Outcome.FAILED, f"rpmbuild has to make one source package, and made {names}")
    try:
        nevra = rpmfile.check_source(found[0].path, stop=context.stop).nevra
    except rpmfile.BadRpm as error:
        raise Ended(Outcome.FAILED, f"the source package {shown(found[0].name)!r} {error}") from error
    check_publishable([found[0].path], context)
    return Taken(path=found[0].path, identity=identity_of(nevra))


def checked_packages(found: Sequence[Found], *, source: str, arch: str, context: StepContext) -> tuple[Taken, ...]:
    """The binary packages. `source` is the file name of the source package that all must name as theirs.

    Raises Ended for a package with a wrong file name, of another arch or source, that cannot be read, or that a
    repository would refuse, and if there is no package.
    """
    if not found:
        raise Ended(Outcome.FAILED, _NO_PACKAGE)
    packages = []
    for one in found:
        try:
            package = rpmfile.check_binary(one.path, stop=context.stop)
        except rpmfile.BadRpm as error:
            raise Ended(Outcome.FAILED, f"the package {shown(one.name)!r} {error}") from error
        for problem in _lies(one, package, source=source, arch=arch):
            raise Ended(Outcome.FAILED, f"the package {shown(one.name)!r} {problem}")
        packages.append(Taken(path=one.path, identity=identity_of(package.nevra)))
    check_publishable([one.path for one in found], context)
    return tuple(packages)


def _lies(one: Found, package: rpmfile.BinaryPackage, *, source: str, arch: str) -> Iterator[str]:
    if one.name != package.nevra.filename:
        yield f"says that it is {package.nevra}, which is another file name; _build_name_fmt must stay as it is"
    if package.nevra.arch not in (arch, "noarch"):
        yield f"is for {package.nevra.arch}, and this was a build for {arch}"
    if not is_package_name(one.name, RpmFormat.suffix):
        yield "has a name that no repository takes: letters, digits and ._+~^-, and first a letter, a digit or _"
    if package.source != source:
        yield f"says that it was built from {shown(package.source)!r}, and this was a build of {source!r}"
