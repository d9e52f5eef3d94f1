"""The packages of a siege: tiny ones, each with a name of its own, made a moment before they are asked for.

Every attempt makes other bytes, so that a package in a repository tells which attempt made it.
"""

import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

_WITHIN_S = 60.0
SPEC = """\
%global debug_package %{{nil}}
Name:           {name}
Version:        1
Release:        {release}%{{?dist}}
Summary:        Built under siege
License:        Apache-2.0
{head}

%description
Built under siege.
{packages}
%build
head -c 600 /dev/urandom | base64 > unique
{build}

%install
install -D -m 644 unique %{{buildroot}}/usr/share/siege/{name}
{install}
%check
{check}

%files
/usr/share/siege/{name}
{files}
"""
_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


class Kind(StrEnum):
    """The behaviour of a package without a wound."""

    NOARCH = "noarch"
    ARCH = "arch"
    MANY = "many"  # three binary packages
    LAYERED = "layered"  # needs what its root has not
    SLEEPS = "sleeps"
    FAILS = "fails"
    UNRESOLVABLE = "unresolvable"
    EXCLUDED = "excluded"
    TIMES_OUT = "times-out"


OUTCOMES = {
    Kind.FAILS: "failed",
    Kind.UNRESOLVABLE: "unresolvable",
    Kind.EXCLUDED: "excluded",
    Kind.TIMES_OUT: "timed_out",
}
_WEIGHTS = {
    Kind.NOARCH: 24,
    Kind.ARCH: 14,
    Kind.MANY: 8,
    Kind.LAYERED: 4,
    Kind.SLEEPS: 30,
    Kind.FAILS: 7,
    Kind.UNRESOLVABLE: 4,
    Kind.EXCLUDED: 3,
    Kind.TIMES_OUT: 6,
}
TIMEOUT_S = 4
_LAYERS = ("bison", "bc", "autoconf")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`outcome` is its end without a wound. `timeout_s` and `limits` are requested with it."""

    name: str
    kind: StrEnum
    spec: str
    outcome: str
    timeout_s: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    is_hostile: bool = False

    @property
    def filename(self) -> str:
        """The name of the src.rpm, by which the judge finds the build."""
        return f"{self.name}.src.rpm"


def pick(number: int, rng: random.Random, *, longest_s: int) -> Recipe:
    kind = rng.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
    return make(number, kind, rng, longest_s=longest_s)


def make(number: int, kind: Kind, rng: random.Random, *, longest_s: int) -> Recipe:
    name = f"sg{number:04}-{kind}"
    head = [] if kind in (Kind.ARCH, Kind.EXCLUDED) else ["BuildArch:      noarch"]
    build = check = "true"
    packages = install = files = ""
    match kind:
        case Kind.NOARCH | Kind.ARCH:
            pass
        case Kind.MANY:
            for part in ("one", "two"):
                packages += f"\n%package {part}\nSummary: Part {part}\n%description {part}\nPart {part}.\n"
                install += f"install -D -m 644 unique %{{buildroot}}/usr/share/siege/{name}-{part}\n"
                files += f"%files {part}\n/usr/share/siege/{name}-{part}\n"
        case Kind.LAYERED:
            head.append(f"BuildRequires:  {rng.choice(_LAYERS)}")
        case Kind.SLEEPS:
            build = f"sleep {rng.randint(3, longest_s)}"
        case Kind.FAILS:
            check = f"echo 'FAIL: {name}'; exit 1"
        case Kind.UNRESOLVABLE:
            head.append("BuildRequires:  no-such-thing-under-siege")
        case Kind.EXCLUDED:
            head.append("ExclusiveArch:  s390x")
        case Kind.TIMES_OUT:
            build = "sleep 86400"
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
    timeout_s = TIMEOUT_S if kind is Kind.TIMES_OUT else None
    return Recipe(name=name, kind=kind, spec=spec, outcome=OUTCOMES.get(kind, "succeeded"), timeout_s=timeout_s)


def make_srpm(recipe: Recipe, into: Path) -> Path:
    """Named by the recipe alone, without version, so that the name is known beforehand."""
    top = into / recipe.name
    (top / "SOURCES").mkdir(parents=True)
    spec = top / f"{recipe.name}.spec"
    spec.write_text(recipe.spec)
    argv = ["rpmbuild", "-bs", "--nodeps", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/db", str(spec)]
    subprocess.run(
        argv,
        env={**_ENV, "HOME": str(top)},
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=_WITHIN_S,
    )
    (made,) = (top / "SRPMS").glob("*.src.rpm")
    return made.rename(into / recipe.filename)
