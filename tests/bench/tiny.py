"""The packages that are built for measurements: a trivial C package, and many tiny ones with a script and no compiler.

None makes debug packages: the demo's macros ask for them and a bare host's do not, and what is compared has to be the
same work.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plumbum import local

_TINY = """\
Name:           {name}
Version:        1
Release:        1%{{?dist}}
Summary:        One of many
License:        Apache-2.0
BuildArch:      noarch
BuildRequires:  bash

%description
One of many tiny packages.

%build
echo 'echo {name}' > tiny

%install
install -D -m 755 tiny %{{buildroot}}/usr/bin/{name}

%files
/usr/bin/{name}
"""
_TRIVIAL_C = """\
%global debug_package %{nil}
Name:           trivial
Version:        1
Release:        1%{?dist}
Summary:        A trivial C package
License:        Apache-2.0
BuildRequires:  gcc

%description
A trivial C package.

%build
echo 'int main(void) { return 0; }' > trivial.c
gcc -O2 -g -o trivial trivial.c

%install
install -D -m 755 trivial %{buildroot}/usr/bin/trivial

%files
/usr/bin/trivial
"""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


def make_trivial_c(into: Path) -> Path:
    return _make(into, "trivial", _TRIVIAL_C)


def make_srpms(count: int, into: Path) -> Sequence[Path]:
    """By name: `tiny-000` and so on."""
    names = [f"tiny-{number:03}" for number in range(count)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: _make(into, name, _TINY.format(name=name)), names))


def _make(into: Path, name: str, text: str) -> Path:
    # rpmbuild makes its own folders, but two that do so at once collide.
    for made in ("BUILD", "BUILDROOT", "RPMS", "SOURCES"):
        (into / made).mkdir(parents=True, exist_ok=True)
    spec = into / f"{name}.spec"
    spec.write_text(text)
    defines = ["--define", f"_topdir {into}", "--define", f"_srcrpmdir {into}", "--define", f"_dbpath {into / 'db'}"]
    local["/usr/bin/rpmbuild"]["-bs", "--nodeps", *defines, str(spec)].run(stdin=None, env=_ENVIRONMENT)
    return next(into.glob(f"{name}-*.src.rpm"))
