"""Many tiny source packages, each with its own name, one script and no compiler: a mass rebuild at its least."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plumbum import local

_SPEC = """\
Name:           tiny-{number:03}
Version:        1
Release:        1%{{?dist}}
Summary:        One of many
License:        Apache-2.0
BuildArch:      noarch
BuildRequires:  bash

%description
One of many tiny packages.

%build
echo 'echo {number}' > tiny

%install
install -D -m 755 tiny %{{buildroot}}/usr/bin/tiny-{number:03}

%files
/usr/bin/tiny-{number:03}
"""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


def make_srpms(count: int, into: Path) -> list[Path]:
    into.mkdir(parents=True)

    def make(number: int) -> Path:
        spec = into / f"tiny-{number:03}.spec"
        spec.write_text(_SPEC.format(number=number))
        defines = [
            "--define",
            f"_topdir {into}",
            "--define",
            f"_srcrpmdir {into}",
            "--define",
            f"_dbpath {into / 'db'}",
        ]
        local["/usr/bin/rpmbuild"]["-bs", "--nodeps", *defines, str(spec)].run(stdin=None, env=_ENVIRONMENT)
        return next(into.glob(f"tiny-{number:03}-*.src.rpm"))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, range(count)))
