"""The files and provides of a repackaged Debian package."""

from pathlib import Path

from deploy.demo.repack import file_lines, render_spec
from deploy.demo.stamp import is_current, replacing
from deploy.demo.tree import Tree, capabilities, merge, pc_version

CONTROL = """\
Package: zlib1g-dev
Version: 1:1.2.13-1
Architecture: amd64
Depends: zlib1g (= 1:1.2.13-1), libc6-dev | libc-dev
Provides: libz-dev
Description: compression library, 100% free
 Development files.
"""


def test_programs_and_links_move_below_usr(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").touch()
    (tmp_path / "bin" / "other").symlink_to("../usr/bin/real")
    (tmp_path / "lib" / "x").mkdir(parents=True)
    (tmp_path / "usr" / "lib" / "x").mkdir(parents=True)
    (tmp_path / "lib" / "x" / "near").symlink_to("far")
    assert sorted(merge(tmp_path)) == ["bin/other", "bin/tool"]
    assert not (tmp_path / "bin").exists()
    assert (tmp_path / "usr" / "bin" / "other").readlink() == Path("real")
    assert (tmp_path / "usr" / "lib" / "x" / "near").readlink() == Path("far")


def test_capabilities_follow_from_files(tmp_path: Path) -> None:
    pc_file = "usr/lib/x86_64-linux-gnu/pkgconfig/zlib.pc"
    (tmp_path / pc_file).parent.mkdir(parents=True)
    (tmp_path / pc_file).write_text("version=1.2\nVersion: ${version}.13\n")
    files = (pc_file, "usr/share/perl/5.36.0/File/Find.pm", "usr/bin/python3.11")
    files += ("usr/lib/python3/dist-packages/setuptools-66.1.1.egg-info/PKG-INFO",)
    tree = Tree(
        root=tmp_path,
        control="",
        config_files=frozenset(),
        files=files,
        empty_directories=(),
        moved_programs=("bin/sh",),
    )
    assert tuple(capabilities(tree)) == (
        "pkgconfig(zlib) = 1.2.13",
        "perl(File::Find)",
        "python(abi) = 3.11",
        "python3dist(setuptools) = 66.1.1",
        "/bin/sh",
    )


def test_a_pc_file_without_a_usable_version_has_none() -> None:
    assert pc_version("Name: x\n") == ""
    assert pc_version("Version: 1 beta\n") == ""


def test_the_spec_has_debians_facts(tmp_path: Path) -> None:
    lines = render_spec(CONTROL, capabilities=("pkgconfig(zlib) = 1.2.13",), file_list=tmp_path / "files").splitlines()
    assert {"Name: zlib1g-dev", "Epoch: 1", "Version: 1.2.13", "Release: 1", "AutoReqProv: no"} <= set(lines)
    assert {"Requires: zlib1g = 1:1.2.13-1", "Requires: (libc6-dev or libc-dev)"} <= set(lines)
    assert {"Provides: libz-dev", "Provides: zlib-devel = 1:1.2.13-1", "Provides: pkgconfig(zlib) = 1.2.13"} <= set(
        lines
    )
    assert "Summary: compression library, 100%% free" in lines
    assert "BuildArch: noarch" not in lines


def test_file_names_cannot_act_as_globs_or_macros() -> None:
    lines = list(file_lines(["usr/bin/[", "etc/a%b"], ["var/x"], frozenset({"/etc/a%b"})))
    assert lines == ['"/usr/bin/?"\n', '%config(noreplace) "/etc/a%%b"\n', '%dir "/var/x"\n']


def test_a_result_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replacing(target, "one") as fresh:
        (fresh / "file").write_text("1")
    assert is_current(target, "one")
    try:
        with replacing(target, "two") as fresh:
            (fresh / "file").write_text("2")
            raise RuntimeError
    except RuntimeError:
        pass
    assert is_current(target, "one")
    assert (target / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
