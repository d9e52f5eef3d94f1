"""The command that prepares the demo's sources: `python -m deploy.demo.sources --output DIR`.

Owns the git repositories, the src.rpm and the manifest demo.json in that directory. Commits and tarballs are the same
on every machine: dates, names and modes are fixed.
"""

import argparse
import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.demo.apt import Apt
from deploy.demo.commands import run
from deploy.demo.distribution import DEFAULT_CACHE
from deploy.demo.errors import DemoError
from deploy.demo.progress import counted, say
from deploy.demo.recipes import RECIPES, Kind, Recipe, Upstream
from deploy.demo.stamp import HERE, digest, is_current, locked, replacing
from farm.model.arch import Arch

PACKAGES = HERE / "packages"
MANIFEST = "demo.json"
# The date of the specs' changelogs.
DATE = "2026-01-05T12:00:00+00:00"
SOURCE_DATE_EPOCH = 1767614400
PACKAGER = "Demo Packager"
EMAIL = "packager@demo.example"
GIT_ENV = {
    "GIT_AUTHOR_NAME": PACKAGER,
    "GIT_AUTHOR_EMAIL": EMAIL,
    "GIT_AUTHOR_DATE": DATE,
    "GIT_COMMITTER_NAME": PACKAGER,
    "GIT_COMMITTER_EMAIL": EMAIL,
    "GIT_COMMITTER_DATE": DATE,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the sources; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.sources", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for demo.json, git/ and srpm/")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="downloaded sources (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        say(str(make(options.output, cache=options.cache)))
    except DemoError as error:
        sys.stderr.write(f"demo sources: {error}\n")
        return 1
    return 0


def make(output: Path, *, cache: Path = DEFAULT_CACHE) -> Path:
    """Prepare every source unless that is done for this code and this place; returns the manifest's path."""
    output = output.resolve()
    key = _key(output)
    if is_current(output, key):
        say(f"{output}: up to date")
        return output / MANIFEST
    with locked(cache.resolve()):
        _make(output, key=key, cache=cache.resolve())
    return output / MANIFEST


def _make(output: Path, *, key: str, cache: Path) -> None:
    apt = Apt(root=cache / "apt" / "source", arch=Arch.X86_64)
    apt.update(say)
    with replacing(output, key) as fresh, counted("sources", len(RECIPES)) as progress:
        entries = []
        for order, recipe in enumerate(RECIPES, start=1):
            place = prepare(recipe, apt=apt, output=fresh)
            entries.append(manifest_entry(recipe, order=order, place=output / place))
            progress.step(recipe.name)
        (fresh / MANIFEST).write_text(json.dumps({"packages": entries}, indent=2) + "\n")


def prepare(recipe: Recipe, *, apt: Apt, output: Path) -> Path:
    """Make one recipe's repository or src.rpm; returns where it is below `output`."""
    with tempfile.TemporaryDirectory(prefix=f"farm-demo-{recipe.name}-") as scratch:
        work = Path(scratch) / recipe.name
        work.mkdir()
        shutil.copyfile(PACKAGES / recipe.name / f"{recipe.name}.spec", work / f"{recipe.name}.spec")
        _add_tarball(recipe, work=work, apt=apt)
        made = _git(recipe, work, output / "git") if recipe.kind is Kind.GIT else _srpm(recipe, work, output / "srpm")
    return made.relative_to(output)


def manifest_entry(recipe: Recipe, *, order: int, place: Path) -> dict[str, Any]:
    """The facts about one package that the demo's script reads."""
    is_git = recipe.kind is Kind.GIT
    return {
        "order": order,
        "name": recipe.name,
        "version": recipe.version,
        "about": recipe.about,
        "kind": recipe.kind.value,
        "url": f"file://{place}" if is_git else None,
        "path": None if is_git else str(place),
        "ref": recipe.tag if is_git else None,
        "expected": "succeeded" if recipe.succeeds else "failed",
        "installs": recipe.name if recipe.succeeds else None,
        "run": list(recipe.run),
    }


def pack(folder: Path) -> bytes:
    """A .tar.gz of a folder, the same bytes wherever it is made."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in (folder, *sorted(folder.rglob("*"))):
            entry = archive.gettarinfo(path, arcname=str(path.relative_to(folder.parent)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = SOURCE_DATE_EPOCH
            entry.mode = 0o755 if path.is_dir() else 0o644
            archive.addfile(entry, io.BytesIO(path.read_bytes()) if path.is_file() else None)
    return gzip.compress(plain.getvalue(), mtime=0)


def _add_tarball(recipe: Recipe, *, work: Path, apt: Apt) -> None:
    tarball = work / f"{recipe.name}-{recipe.version}.tar.gz"
    match recipe.upstream:
        case Upstream.OURS:
            tarball.write_bytes(pack(PACKAGES / recipe.name / f"{recipe.name}-{recipe.version}"))
        case Upstream.DEBIAN:
            found = apt.download_source(recipe.name, apt.root / "files" / recipe.name)
            wanted = f"{recipe.name}_{recipe.version}.orig.tar.gz"
            source = next((path for path in found if path.name == wanted), None)
            if source is None:
                names = ", ".join(path.name for path in found)
                raise DemoError(f"Debian has {names}, not {wanted}: change deploy/demo/recipes.py and the spec")
            shutil.copyfile(source, tarball)


def _git(recipe: Recipe, work: Path, output: Path) -> Path:
    bare = output / f"{recipe.name}.git"
    for path in work.iterdir():
        path.chmod(0o644)
    for argv in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "--no-gpg-sign", f"--message=Package {recipe.name} {recipe.version}"),
        ("tag", "--annotate", f"--message={recipe.name} {recipe.version}", recipe.tag),
        ("clone", "--quiet", "--bare", "--no-hardlinks", ".", str(bare)),
    ):
        run(["git", *argv], cwd=work, env=GIT_ENV)
    # The copy's configuration names a work tree that is removed soon.
    run(["git", "--git-dir", str(bare), "remote", "remove", "origin"], env=GIT_ENV)
    return bare


def _srpm(recipe: Recipe, work: Path, output: Path) -> Path:
    defines = {
        "_sourcedir": work,
        "_srcrpmdir": output,
        "_topdir": work / "top",
        "_buildhost": "demo",
        "dist": ".demo1",
    }
    defines["use_source_date_epoch_as_buildtime"] = 1
    # A src.rpm keeps the times of its files as they are, whatever rpm's clamping macro says.
    for path in work.iterdir():
        os.utime(path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))
    arguments = [part for name, value in defines.items() for part in ("--define", f"{name} {value}")]
    env = {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "HOME": str(work)}
    run(["rpmbuild", "-bs", "--nodeps", "--quiet", *arguments, str(work / f"{recipe.name}.spec")], env=env)
    return next(output.glob(f"{recipe.name}-{recipe.version}-*.src.rpm"))


def _key(output: Path) -> str:
    files = [path for path in sorted(PACKAGES.rglob("*")) if path.is_file()]
    # The manifest holds absolute paths, so a directory that was moved is made again.
    return digest((HERE / "sources.py", HERE / "recipes.py", *files), str(output))


if __name__ == "__main__":
    sys.exit(main())
