"""Hostile packages: recipes that attack the host, the farm or packages that depend on them.

Each ends as its own failure, or succeeds and does no harm. MARK is in the names of all of them and of all that
they make, so that the judge can tell where one of them had an effect.
"""

import random
from enum import StrEnum

from tests.siege.recipes import SPEC, TIMEOUT_S, Recipe

MARK = "evil"
OWNER = "mallory"
_FILES = 3000
_LOOPS = 12
_SHADOWED = ("setpriv", "sh", "env", "true", "id", "enter")


class Attack(StrEnum):
    """The attack of a package."""

    TRAP = "trap"  # its scriptlet kills dnf where it is installed
    TRAPPED = "trapped"  # requires a trap
    SHADOW = "shadow"  # has programs of the names that a sandbox may run, earlier in PATH
    SHADOWED = "shadowed"  # requires a shadow
    INODES = "inodes"
    HEADER = "header"  # control characters, which no XML can say
    SETSID = "setsid"  # loops in sessions of their own


#: The order in which a stream has them; what requires another comes after it.
ORDER = (
    Attack.TRAP, Attack.SHADOW, Attack.HEADER, Attack.INODES, Attack.TRAPPED, Attack.SHADOWED, Attack.SETSID,
)  # fmt: skip
REQUIRES = {Attack.TRAPPED: Attack.TRAP, Attack.SHADOWED: Attack.SHADOW}
#: SHADOWED fails by itself: rpm's own scripts in the build root find `sh` by PATH, with the build's uid. That no such
#: program runs as root is tested in tests/attacks/test_isolation.py.
OUTCOMES = {
    Attack.TRAP: "succeeded",
    Attack.SHADOW: "succeeded",
    Attack.SHADOWED: "failed",
    Attack.TRAPPED: "failed",
    Attack.HEADER: "failed",
    Attack.INODES: "over_limit",
    Attack.SETSID: "timed_out",
}


def make_hostile(number: int, attack: Attack, rng: random.Random, *, requires: str = "") -> Recipe:
    """`requires` is the name of the package that it has as a dependency."""
    name = f"sg{number:04}-{MARK}-{attack}"
    head = ["BuildArch:      noarch"]
    build = check = "true"
    packages = install = files = ""
    limits: dict[str, int] = {}
    if requires:
        head.append(f"BuildRequires:  {requires}")
    match attack:
        case Attack.TRAP:
            packages = "\n%post\nkill -9 $PPID\n"
        case Attack.SHADOW:
            script = f"printf '#!/bin/bash\\necho {MARK} $0 as $UID\\nexit 7\\n' > shadow"
            build = script
            where = "%{buildroot}/usr/local/sbin"
            install = "\n".join(f"install -D -m 4755 shadow {where}/{tool}" for tool in _SHADOWED)
            files = "/usr/local/sbin/*"
        case Attack.INODES:
            build = f"seq -f file-%.0f {_FILES * 4} | xargs touch; sleep 60"
            limits = {"files": _FILES}
        case Attack.HEADER:
            packages = f"\n%package red\nSummary: \x1b[31m{MARK}\x01\n%description red\nRed.\n"
            files = "%files red\n"
        case Attack.SETSID:
            loop = "while :; do :; done"
            build = f"for n in $(seq {_LOOPS}); do setsid sh -c '{loop}' & done; setsid sleep 86400 & sleep 86400"
        case _:
            pass
    spec = SPEC.format(
        name=name,
        release=rng.randint(1, 9),
        head="\n".join(head),
        packages=packages,
        build=build,
        install=install,
        check=check,
        files=files,
    )
    return Recipe(
        name=name,
        kind=attack,
        spec=spec,
        outcome=OUTCOMES[attack],
        timeout_s=TIMEOUT_S if attack is Attack.SETSID else None,
        limits=limits,
        is_hostile=True,
    )
