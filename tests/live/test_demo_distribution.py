"""The demo distribution is one: dnf fills a root from it, rpmbuild works there, and dnf installs what came out."""

import tarfile
from pathlib import Path

import pytest

from deploy.demo.commands import run
from deploy.demo.install import install, run_installed
from deploy.demo.repodata import write_repodata
from farm.model.arch import Arch

pytestmark = pytest.mark.live

SPEC = """\
Name: trivial
Version: 1
Release: 1%{?dist}
Summary: Says hello
License: MIT
Source0: trivial-1.tar
BuildRequires: gcc

%description
Says hello.

%generate_buildrequires
echo make

%prep
%autosetup

%build
%make_build CFLAGS="%{build_cflags}" LDFLAGS="%{build_ldflags}"

%install
%make_install
install -D -m 0755 script %{buildroot}%{_bindir}/trivial-script

%files
%{_bindir}/*

%changelog
* Mon Jan 05 2026 Demo Packager <packager@demo.example> - 1-1
- First release
"""
FILES = {
    "trivial.c": '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n',
    "Makefile": "trivial: trivial.c\ninstall:\n\tinstall -D trivial $(DESTDIR)/usr/bin/trivial\n",
    "script": "#!/bin/sh\necho hello\n",
}


def sandboxed(root: Path, *argv: str) -> str:
    """Run in the root with namespaces of its own and no network."""
    room = ["--bind", str(root), "/", "--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/var/tmp"]
    clean = ["--unshare-all", "--clearenv", "--setenv", "PATH", "/usr/bin:/usr/sbin", "--setenv", "HOME", "/tmp"]
    return run(["bwrap", *room, *clean, "--chdir", "/tmp", *argv])


def write_source(folder: Path) -> None:
    source = folder / "trivial-1"
    source.mkdir(parents=True)
    for name, text in FILES.items():
        (source / name).write_text(text)
    with tarfile.open(folder / "trivial-1.tar", "w") as archive:
        archive.add(source, arcname="trivial-1")
    (folder / "trivial.spec").write_text(SPEC)


def test_a_package_is_built_in_a_root_and_installed_from_a_repository(demo_distribution: Path, tmp_path: Path) -> None:
    base = {"demo": f"file://{demo_distribution}/x86_64"}
    root = tmp_path / "build" / "root"
    install(root, ["demo-build"], base, arch=Arch.X86_64)
    write_source(root / "tmp" / "trivial")

    define = ("--define", "_sourcedir /tmp/trivial", "--define", "_topdir /tmp/top")
    sandboxed(root, "rpmbuild", *define, "-bs", "/tmp/trivial/trivial.spec")
    sandboxed(root, "rpmbuild", *define, "--rebuild", "/tmp/top/SRPMS/trivial-1-1.demo1.src.rpm")

    made = root / "tmp" / "top" / "RPMS" / "x86_64"
    names = sorted(path.name.removesuffix("-1-1.demo1.x86_64.rpm") for path in made.iterdir())
    assert names == ["trivial", "trivial-debuginfo", "trivial-debugsource"]
    requires = run(["rpm", "--query", "--requires", "--package", str(made / "trivial-1-1.demo1.x86_64.rpm")])
    assert {"/bin/sh", "libc.so.6()(64bit)", "rtld(GNU_HASH)"} <= set(requires.splitlines())

    write_repodata(made)
    fresh = tmp_path / "installed" / "root"
    install(fresh, ["trivial"], base | {"built": f"file://{made}"}, arch=Arch.X86_64)
    assert run_installed(fresh, ["/usr/bin/trivial"]) == "hello\n"
    assert run_installed(fresh, ["/usr/bin/trivial-script"]) == "hello\n"
    assert "Demo Linux" in (fresh / "etc" / "os-release").read_text()


def test_every_package_of_the_distribution_can_be_installed(demo_distribution: Path) -> None:
    repository = f"--repofrompath=demo,file://{demo_distribution}/x86_64"
    assert run(["dnf", "--quiet", "repoclosure", repository, "--repo=demo", "--forcearch=x86_64"]).strip() == ""
