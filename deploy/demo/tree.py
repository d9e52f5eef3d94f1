"""The file tree of one package: unpacks it from a .deb, moves it below /usr, removes files, finds its provides.

Runs no code of the package: maintainer scripts are unpacked beside the tree and never executed.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.demo.commands import run
from deploy.demo.contents import DROPPED_PATHS

# Directories that the `filesystem` package links into /usr.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
PC_FILE = re.compile(r"^usr/(?:lib(?:/[^/]+)?|share)/pkgconfig/(?P<name>[^/]+)\.pc$")
PERL_MODULE = re.compile(
    r"^usr/(?:share|lib(?:/[^/]+)?)/perl(?:5|-base)?(?:/5[0-9.]*)?/(?P<name>[A-Za-z_]\w*(?:/\w+)*)\.pm$"
)
PYTHON = re.compile(r"^usr/bin/python(?P<abi>3\.\d+)$")
PYTHON_DIST = re.compile(
    r"^usr/lib/python3/dist-packages/(?P<name>[^/]+?)-(?P<version>\d[^-/]*)(?:-py[\d.]+)?\.(?:egg|dist)-info"
)
LIBRARY = re.compile(r"^usr/lib(?:64)?/(?:[^/]+-linux-gnu/)?[^/]+\.so(?:\.[^/]+)?$")
PC_VARIABLE = re.compile(r"^(\w+)\s*=\s*(.*)$")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Paths are relative to `root`, sorted; directories only where they are empty."""

    root: Path
    control: str
    config_files: frozenset[str]
    files: tuple[str, ...]
    empty_directories: tuple[str, ...]
    moved_programs: tuple[str, ...]


def unpack(deb: Path, work: Path) -> Tree:
    """Unpack one .deb below `work`, which must not exist."""
    root = work / "root"
    work.mkdir(parents=True)
    run(["dpkg-deb", "--raw-extract", str(deb), str(root)])
    control_directory = work / "DEBIAN"
    (root / "DEBIAN").rename(control_directory)
    programs = tuple(merge(root))
    for path in DROPPED_PATHS:
        _drop(root / path, root)
    files, empty = scan(root)
    conffiles = control_directory / "conffiles"
    return Tree(
        root=root,
        control=(control_directory / "control").read_text(),
        config_files=frozenset(conffiles.read_text().split("\n") if conffiles.exists() else ()),
        files=files,
        empty_directories=empty,
        moved_programs=programs,
    )


def add_links(root: Path, links: dict[str, str]) -> None:
    """Make links that Debian makes at installation; a path is absolute, as in the distribution."""
    for path, target in links.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink() and not place.exists():
            place.symlink_to(target)


def scan(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files and links, and empty directories, below a tree; gives shared libraries an RPM distribution's mode."""
    files: list[str] = []
    empty: list[str] = []
    for folder, directories, names in os.walk(root):
        inside = Path(folder).relative_to(root)
        linked = [name for name in directories if Path(folder, name).is_symlink()]
        directories[:] = [name for name in directories if name not in linked]
        if not names and not directories and not linked and inside.parts:
            empty.append(str(inside))
        for name in (*names, *linked):
            files.append(str(inside / name))
            _normalise_mode(Path(folder, name), str(inside / name))
    return tuple(sorted(files)), tuple(sorted(empty))


def capabilities(tree: Tree) -> Iterator[str]:
    """RPM capabilities that follow from the files: pkgconfig(), perl(), python, and programs under their old path."""
    for path in tree.files:
        if found := PC_FILE.match(path):
            version = pc_version((tree.root / path).read_text(errors="replace"))
            yield f"pkgconfig({found['name']})" + (f" = {version}" if version else "")
        elif found := PERL_MODULE.match(path):
            yield f"perl({found['name'].replace('/', '::')})"
        elif found := PYTHON.match(path):
            yield f"python(abi) = {found['abi']}"
        elif found := PYTHON_DIST.match(path):
            yield f"python3dist({found['name'].lower().replace('_', '-')}) = {found['version']}"
    yield from (f"/{path}" for path in tree.moved_programs)


def libraries(tree: Tree) -> tuple[Path, ...]:
    """Shared libraries in the dynamic linker's directories, whose names other packages may depend on."""
    paths = (tree.root / path for path in tree.files if LIBRARY.match(path))
    return tuple(path for path in paths if not path.is_symlink() and path.is_file() and _is_elf(path))


def _drop(path: Path, root: Path) -> None:
    """Remove a folder, and those above it that it leaves empty."""
    shutil.rmtree(path, ignore_errors=True)
    above = path.parent
    while above != root and above.is_dir() and not any(above.iterdir()):
        above.rmdir()
        above = above.parent


def _is_elf(path: Path) -> bool:
    # libc.so and its like are linker scripts.
    with path.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def pc_version(text: str) -> str:
    """The Version of a pkg-config file with its variables expanded; empty when it has none that RPM accepts."""
    lines = text.splitlines()
    variables = {found[1]: found[2] for line in lines if (found := PC_VARIABLE.match(line))}
    version = next((line.partition(":")[2].strip() for line in lines if line.startswith("Version:")), "")
    expanded = re.sub(r"\$\{(\w+)\}", lambda found: variables.get(found[1], ""), version)
    return expanded if re.fullmatch(r"[A-Za-z0-9._+~^]+", expanded) else ""


def merge(root: Path) -> Iterator[str]:
    """Move top-level bin, lib and so on below usr; yields the programs that had the old path."""
    for name in MERGED:
        source = root / name
        if not source.is_dir() or source.is_symlink():
            continue
        if name in {"bin", "sbin"}:
            yield from (f"{name}/{path.name}" for path in source.iterdir())
        for folder, directories, names in os.walk(source):
            for each in (*directories, *names):
                _relink(Path(folder, each), root)
        _move(source, root / "usr" / name)


def _relink(path: Path, root: Path) -> None:
    """Rewrite a relative link whose meaning would change with the depth of its directory."""
    if not path.is_symlink() or (target := str(path.readlink())).startswith("/"):
        return
    old = PurePosixPath("/") / path.relative_to(root)
    absolute = os.path.normpath(old.parent / target)
    if absolute.split("/")[1] in MERGED:
        absolute = f"/usr{absolute}"
    path.unlink()
    path.symlink_to(os.path.relpath(absolute, PurePosixPath("/usr") / old.parent.relative_to("/")))


def _move(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for path in source.iterdir():
        if path.is_dir() and not path.is_symlink():
            _move(path, target / path.name)
        elif not (target / path.name).is_symlink() and not (target / path.name).exists():
            path.rename(target / path.name)
    shutil.rmtree(source)


def _normalise_mode(path: Path, inside: str) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        return
    # Debian's libraries are not executable, RPM's generators look at the bit; groups other than root do not survive.
    wanted = stat.S_IMODE(mode) & ~stat.S_ISGID | (0o755 if LIBRARY.match(inside) else 0)
    if wanted != stat.S_IMODE(mode):
        path.chmod(wanted)
