"""A root gets a database in its own rpm's form if it needs one: with stand-ins for rpm, rpmdb and chroot on PATH."""

from pathlib import Path

import pytest

from workers.core.run import CommandFailed, capture
from workers.formats.rpm.rpmbuild import SCRIPTS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two packages in the host's form."""
    root = tmp_path / "root"
    for name in ("usr/bin", "var/lib/rpm"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/rpm").touch(mode=0o755)
    (root / "var/lib/rpm/rpmdb.sqlite").write_text("a\nb\n")
    return root


def settle(root: Path, when: str, *, reads_ours: bool, can_import: bool = True) -> str:
    """The root's rpm lists `Packages`; with `reads_ours` it reads the host's form as well."""
    tools = root.parent / "tools"
    tools.mkdir(exist_ok=True)
    theirs = (
        f"{root}/var/lib/rpm/Packages {root}/var/lib/rpm/rpmdb.sqlite" if reads_ours else f"{root}/var/lib/rpm/Packages"
    )
    take = f"cat > {root}/var/lib/rpm/Packages" if can_import else "cat > /dev/null"
    scripts = {
        "rpm": f"cat {root}/var/lib/rpm/rpmdb.sqlite",
        "rpmdb": f"cat {root}/var/lib/rpm/rpmdb.sqlite",
        "chroot": f'case "$2" in */rpm) cat {theirs} 2> /dev/null;; */rpmdb) {take};; esac; true',
    }
    for name, body in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    command = ["sh", SCRIPTS / "database.sh", when, root, "/var/lib/rpm"]
    return capture(command, cwd=root, env={"PATH": f"{tools}:/usr/bin:/bin"}, timeout_s=10, limit_bytes=10_000).decode()


def test_a_root_that_reads_the_hosts_form_is_left_alone(root: Path) -> None:
    assert settle(root, "after", reads_ours=True) == ""
    assert [path.name for path in (root / "var/lib/rpm").iterdir()] == ["rpmdb.sqlite"]


def test_a_root_that_does_not_gets_its_own_form_and_keeps_the_hosts_for_layers(root: Path) -> None:
    assert "sees 0 of 2 packages" in settle(root, "after", reads_ours=False)
    assert (root / "var/lib/rpm/Packages").read_text() == "a\nb\n"
    assert (root / "var/lib/farm-host-rpmdb/rpmdb.sqlite").is_file()
    settle(root, "before", reads_ours=False)
    assert [path.name for path in (root / "var/lib/rpm").iterdir()] == ["rpmdb.sqlite"]
    assert not (root / "var/lib/farm-host-rpmdb").exists()


def test_a_root_that_cannot_be_helped_fails_in_words(root: Path) -> None:
    with pytest.raises(CommandFailed):
        settle(root, "after", reads_ours=False, can_import=False)


def test_a_root_without_rpm_needs_nothing(root: Path) -> None:
    (root / "usr/bin/rpm").unlink()
    assert settle(root, "after", reads_ours=False) == ""
