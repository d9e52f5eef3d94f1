"""The command that makes the demo distribution: `python -m deploy.demo.distribution --output DIR`.

Owns the order of the steps per architecture: resolve, download, repackage, describe, switch.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from deploy.demo.apt import Apt
from deploy.demo.arch import triplet
from deploy.demo.contents import BUILD_PACKAGES, META_PACKAGES, PRESENT, wanted
from deploy.demo.errors import DemoError
from deploy.demo.progress import counted, say
from deploy.demo.repack import build, repack
from deploy.demo.stamp import HERE, META, digest, is_current, locked, replacing
from farm.model.arch import Arch

DEFAULT_CACHE = Path.home() / ".cache" / "farm-demo"
# If one of these modules changes, the packages are made again.
DECIDING = ("arch", "contents", "control", "repack", "repodata", "translate", "tree")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing; returns the exit code."""
    options = _parser().parse_args(arguments)
    arches = [Arch(name) for name in options.arch or [Arch.X86_64.value]]
    try:
        make(arches, options.output, cache=options.cache, refresh=options.refresh)
    except DemoError as error:
        sys.stderr.write(f"demo distribution: {error}\n")
        return 1
    return 0


def make(arches: Iterable[Arch], output: Path, *, cache: Path = DEFAULT_CACHE, refresh: bool = False) -> None:
    """Make each `output/<arch>` unless it is there for this code and package set; safe to repeat."""
    for arch in dict.fromkeys(arches):
        key, target = _key(arch), output.resolve() / arch.value
        if not refresh and is_current(target, key):
            say(f"{target}: up to date")
            continue
        with locked(cache.resolve()):
            if refresh or not is_current(target, key):
                _make(arch, target=target, key=key, cache=cache.resolve())


def _make(arch: Arch, *, target: Path, key: str, cache: Path) -> None:
    apt = Apt(root=cache / "apt" / arch.value, arch=arch, present=PRESENT)
    apt.update(say)
    downloads = apt.closure(wanted())
    missing = [each for each in downloads if not (apt.archives / each.file_name).exists()]
    size_mb = sum(each.size_bytes for each in missing) / 1e6
    say(f"{arch.value}: {len(downloads)} Debian packages, {len(missing)} to download ({size_mb:.0f} MB)")
    if missing:
        with counted(f"download for {arch.value}", len(missing)) as progress:
            apt.download(wanted(), progress.step)
    with replacing(target, key) as fresh:
        convert([apt.archives / each.file_name for each in downloads], arch=arch, output=fresh)
        _describe(fresh)
    say(f"{target}: ready")


def convert(debs: Sequence[Path], *, arch: Arch, output: Path) -> None:
    """Repackage the Debian packages and build the meta packages, on all cores."""
    with tempfile.TemporaryDirectory(prefix="farm-demo-") as scratch:
        work = Path(scratch)
        jobs: dict[str, Callable[[], None]] = {
            name: partial(_meta, name, arch=arch, work=work / name, output=output) for name in META_PACKAGES
        }
        jobs |= {
            deb.name: partial(repack, deb, arch=arch, work=work / deb.name.replace("%", "_"), output=output)
            # The largest first, so that no core is left with gcc at the end.
            for deb in sorted(debs, key=lambda path: -path.stat().st_size)
        }
        with counted(f"repackage for {arch.value}", len(jobs)) as progress:
            _run_all(jobs, progress.step)


def _run_all(jobs: dict[str, Callable[[], None]], step: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        running = {pool.submit(job): name for name, job in jobs.items()}
        try:
            for done in as_completed(running):
                done.result()
                step(running[done])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _meta(name: str, *, arch: Arch, work: Path, output: Path) -> None:
    work.mkdir()
    macros = {"meta": META, "triplet": triplet(arch), "build_packages": " ".join(BUILD_PACKAGES)}
    build(META / f"{name}.spec", arch=arch, work=work, output=output, **macros)


def _describe(directory: Path) -> None:
    # Late: the bindings cost more than a whole run that finds everything up to date.
    from deploy.demo.repodata import write_repodata

    with counted("repository metadata", 1) as progress:
        progress.step(f"{write_repodata(directory)} packages")


def _key(arch: Arch) -> str:
    modules = (HERE / f"{name}.py" for name in DECIDING)
    return digest((*modules, *sorted(META.iterdir())), arch.value, *wanted())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.distribution", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for <arch>/*.rpm and <arch>/repodata")
    parser.add_argument("--arch", action="append", choices=[arch.value for arch in Arch], help="repeatable; x86_64")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="downloaded packages (%(default)s)")
    parser.add_argument("--refresh", action="store_true", help="make it again, with today's Debian packages")
    return parser


if __name__ == "__main__":
    sys.exit(main())
