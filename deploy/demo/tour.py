"""`make demo`: from nothing to packages built, and one of them installed with dnf from the repository it landed in.

Everything a person would type is typed here for real, through the installed command line, and shown.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbum import local
from rich.console import Console

from deploy.demo import distribution, install, sources
from deploy.demo.errors import DemoError
from farm.client import Farm
from farm.config import Settings
from farm.embedded import running_farm
from farm.errors import FarmAlreadyRunning, FarmError
from farm.model.arch import Arch

console = Console(highlight=False)


def main() -> int:
    argparse.ArgumentParser(prog="make demo", description=__doc__).parse_args()
    start = time.monotonic()
    settings = Settings.from_env()
    try:
        packages = _prepare(settings)
        with _farm(settings):
            ok = _build_all(settings, packages)
            _install(settings, packages)
            _title("What was built")
            _type(settings, "list", "--limit", str(len(packages)))
    except (DemoError, FarmError) as error:
        console.print(f"[red]error:[/red] {error}", markup=True)
        return 1
    _go_on(settings, time.monotonic() - start)
    return 0 if ok else 1


def _prepare(settings: Settings) -> list[dict[str, Any]]:
    demo = settings.data / "demo"
    arch = _arch()
    _title(f"The distribution `demo`, made out of Debian packages, in {demo / 'distribution'}")
    distribution.make([arch], demo / "distribution")
    _title(f"Sources to build: upstream tarballs from Debian's source archive, in {demo / 'sources'}")
    manifest = sources.make(demo / "sources")
    found: list[dict[str, Any]] = json.loads(manifest.read_text())["packages"]
    return found


@contextmanager
def _farm(settings: Settings) -> Iterator[None]:
    """The farm that already runs on this data, or one for the time of the demo."""
    _title("The farm: broker, scheduler, workers and Flower in one process tree (farm up)")
    try:
        with running_farm(settings, say=lambda what: console.print(f"  starting {what}")) as farm:
            console.print(f"  Flower: {farm.flower_url}")
            yield
            console.print("\nstopping the farm")
    except FarmAlreadyRunning as running:
        console.print(f"  {running}\n  using that one")
        yield


def _build_all(settings: Settings, packages: list[dict[str, Any]]) -> bool:
    ok = True
    for package in packages:
        _title(f"{package['name']}: {package['about']}")
        where = ["--git", package["url"]] if package["kind"] == "git" else ["--srpm", package["path"]]
        ref = ["--ref", package["ref"]] if package.get("ref") else []
        code = _type(settings, "build", *where, *ref, "--target", "demo", "--arch", _arch(), "--wait")
        wanted = 0 if package["expected"] == "succeeded" else 10
        if code != wanted:
            console.print(f"[red]expected exit code {wanted}, got {code}[/red]")
            ok = False
        elif wanted:
            console.print(f"This one is made to fail; exit code {code} says that the package did, and not the farm.")
    return ok


def _install(settings: Settings, packages: list[dict[str, Any]]) -> None:
    wanted = [package for package in packages if package.get("run")]
    names = [package["installs"] for package in wanted]
    _title(f"dnf installs {', '.join(names)} from the repository they landed in")
    arch = _arch()
    root = settings.data / "demo" / "installed" / "root"
    with Farm.connect(settings) as farm:
        built = farm.repository("demo", arch)
    base = f"file://{settings.data}/demo/distribution/{arch}"
    said = install.install(root, names, {"demo": base, "built": built.baseurl}, arch=arch)
    for line in said.splitlines():
        if " built " in line:
            console.print(f"  {line.strip()}")
    for package in wanted:
        console.print(f"[bold]$ {shlex.join(package['run'])}[/bold]")
        console.print(install.run_installed(root, package["run"]).rstrip(), markup=False)


def _arch() -> Arch:
    """The demo builds for this machine; a farm with workers for other arches builds for those too."""
    return Arch(platform.machine())


def _type(settings: Settings, *words: str) -> int:
    """Run `farm` as a person would, on this terminal; its exit code."""
    console.print(f"[bold]$ farm {shlex.join(words)}[/bold]", soft_wrap=True)
    farm = local[str(Path(sys.executable).parent / "farm")]
    code = farm[list(words)].with_env(FARM_DATA=str(settings.data)).popen(stdin=None, stdout=None, stderr=None).wait()
    return int(code)


def _go_on(settings: Settings, seconds: float) -> None:
    prefix = "" if settings.data == Settings.from_env({}).data else f"export FARM_DATA={settings.data}\n    "
    console.print(
        f"""
Done in {seconds:.0f} s. Everything is in {settings.data}; a second `make demo` takes seconds.
Repositories: {settings.repositories_dir}/demo/     Logs of the processes: {settings.data / "log"}

Go on by hand:
    source .venv/bin/activate
    {prefix}farm up                                      # in a terminal of its own; Ctrl-C drains
    farm list                                    # the builds above are all there
    farm log BUILD                               # the log; of the failed step, if one failed
    farm build --git URL --target demo --arch {_arch()} --wait
    farm repo demo                               # a .repo file for dnf
""",
        markup=False,
        soft_wrap=True,
    )


def _title(text: str) -> None:
    console.rule(f"[bold]{text}", align="left")


if __name__ == "__main__":
    sys.exit(main())
