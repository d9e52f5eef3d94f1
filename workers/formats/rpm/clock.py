"""Finds a spec whose version or release is read from the clock, or differs each time that rpm reads the spec.

Every root reads the spec again, so such a spec gives packages that do not belong to their source package. rpm is asked
once more, in the same session, with a clock that is more than a year ahead.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from farm.model.outcome import Outcome
from workers.core.text import shown
from workers.core.untrusted import read_left
from workers.formats.rpm import rpmbuild
from workers.isolation.sandbox import Bind
from workers.roots.session import RootSession

_INSIDE = "/run/farm/clock.sh"
_ANSWER_BYTES = 4096
_SPEC_MAX_BYTES = 8 * 2**20
#: Without one of these a spec computes nothing but text.
_COMPUTES = re.compile(rb"%\(|%\{\s*(?:lua|load|getenv|shrink|uncompress)|%include\b")


def problem(session: RootSession, recipe: Path, sources: Bind, options: Sequence[str], identity: str) -> str | None:
    """The reason why the source package `identity` cannot be built; None if the spec says the same at any time."""
    if not recipe.is_file() or recipe.stat().st_size > _SPEC_MAX_BYTES or not _COMPUTES.search(recipe.read_bytes()):
        return None
    later = _later(session, recipe.name, sources, options)
    now = identity.removesuffix(".src").removesuffix(".nosrc")
    if later is None or later == now:
        return None
    what = f"the spec reads its version or release from the clock: it is {shown(now)}, and later {shown(later)}"
    remedy = "write the value into the spec, give it with --define, or use %autorelease"
    return f"{what}, so the packages would not belong to their source package; {remedy}"


def _later(session: RootSession, recipe: str, sources: Bind, options: Sequence[str]) -> str | None:
    binds = [Bind(path=rpmbuild.SCRIPTS / "clock.sh", inside=_INSIDE), *_date(session)]
    done = session.run(
        ["sh", _INSIDE, f"/builddir/in/{recipe}", *options, "--define", "_sourcedir /builddir/in"],
        binds=[*binds, sources],
        shown=["rpmspec", "-q", "--srpm", recipe, "(at a later time)"],
    )
    said = read_left(session.out / "later", limit_bytes=_ANSWER_BYTES)
    if done.outcome is not Outcome.SUCCEEDED or not said:
        return None
    return said.decode(errors="replace").strip()


def _date(session: RootSession) -> list[Bind]:
    """The binds that replace the root's `date`; none if the root has no such file."""
    found = next((lower / "usr/bin/date" for lower in session.root.lowers if (lower / "usr/bin/date").exists()), None)
    if found is None or found.is_symlink() or not found.is_file():
        return []
    # The farm's own file need not be executable.
    shifted = session.scratch / "date"
    shifted.write_bytes((rpmbuild.SCRIPTS / "date.sh").read_bytes())
    shifted.chmod(0o755)
    return [Bind(path=found, inside="/run/farm/date"), Bind(path=shifted, inside="/usr/bin/date")]
