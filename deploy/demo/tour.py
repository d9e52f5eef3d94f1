"""`make demo`: starts a farm, builds packages, and installs one of them with dnf from the repository that it is in.

It runs and shows the commands that a person would type, with the installed command line. With `--pulp`
(`make demo PULP=1`) the repository is one of a real Pulp, started for the demo.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbum import local
from rich.console import Console

from deploy.demo import distribution, install, sources
from deploy.demo.errors import DemoError
from deploy.pulp.accounts import make_publisher
from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp, PulpConfig
from farm.client import Farm
from farm.config import PULP, Settings
from farm.errors import FarmAlreadyRunning, FarmError
from farm.model.arch import Arch
from farm.up.embedded import running_farm

console = Console(highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--pulp", action="store_true", help="publish to a Pulp that is started for the demo")
    given = parser.parse_args()
    start = time.monotonic()
    settings = Settings.from_env()
    try:
        packages = _prepare(settings)
        with ExitStack() as stack:
            environment = {"FARM_DATA": str(settings.data)}
            if given.pulp:
                environment |= stack.enter_context(_pulp(settings))
            farm = Demo(settings=Settings.from_env({**local.env, **environment}), environment=environment)
            stack.enter_context(_farm(farm))
            ok = _build_all(farm, packages)
            _install(farm, packages)
            _title("The builds")
            _type(farm, "list", "--limit", str(len(packages)))
    except (DemoError, FarmError, PulpError) as error:
        console.print("[red]error:[/red]", end=" ")
        console.print(str(error), markup=False)
        return 1
    _go_on(farm, time.monotonic() - start)
    return 0 if ok else 1


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The farm's settings, and the environment variables that give them to the commands."""

    settings: Settings
    environment: Mapping[str, str]


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
def _pulp(settings: Settings) -> Iterator[Mapping[str, str]]:
    """A Pulp for the time of the demo, with an account for the farm; the variables that name them."""
    data = settings.data / "pulp"
    _title(f"A Pulp: PostgreSQL, API, content app and two workers, in {data}")
    config = PulpConfig(data=data, cache=settings.cache / "pulp", say=lambda what: console.print(f"  {what}"))
    with LocalPulp(config) as pulp:
        console.print("  making the account farm-publisher, with only the rights that publishing needs")
        account = make_publisher(pulp)
        password = data / "publisher-password"
        password.touch(mode=0o600)
        password.write_text(account.password)
        console.print(f"  API: {pulp.url}/pulp/api/v3/     content: {pulp.content_url}", soft_wrap=True)
        yield {
            "FARM_REPOSITORIES": "pulp",
            "FARM_PULP_URL": pulp.url,
            "FARM_PULP_USERNAME": account.username,
            "FARM_PULP_PASSWORD_FILE": str(password),
        }
        console.print("stopping Pulp")


@contextmanager
def _farm(demo: Demo) -> Iterator[None]:
    """The farm that already runs on this data, or one for the time of the demo."""
    settings = demo.settings
    _title("The farm: broker, scheduler, workers and Flower in one process tree (farm up)")
    try:
        with running_farm(settings, say=lambda what: console.print(f"  starting {what}")) as farm:
            console.print(f"  Flower: {farm.flower_url}")
            yield
            console.print("\nstopping the farm")
    except FarmAlreadyRunning as running:
        if settings.repositories == PULP:
            raise
        console.print(f"  {running}\n  using that one")
        yield


def _build_all(demo: Demo, packages: list[dict[str, Any]]) -> bool:
    ok = True
    for package in packages:
        _title(f"{package['name']}: {package['about']}")
        where = ["--git", package["url"]] if package["kind"] == "git" else ["--srpm", package["path"]]
        ref = ["--ref", package["ref"]] if package.get("ref") else []
        code = _type(demo, "build", *where, *ref, "--target", "demo", "--arch", _arch(), "--wait")
        wanted = 0 if package["expected"] == "succeeded" else 10
        if code != wanted:
            console.print(f"[red]expected exit code {wanted}, got {code}[/red]")
            ok = False
        elif wanted:
            console.print(f"This package fails on purpose; exit code {code} blames the package and not the farm.")
    return ok


def _install(demo: Demo, packages: list[dict[str, Any]]) -> None:
    settings = demo.settings
    wanted = [package for package in packages if package.get("run")]
    names = [package["installs"] for package in wanted]
    _title(f"dnf installs {', '.join(names)} from the farm's repository")
    arch = _arch()
    root = settings.data / "demo" / "installed" / "root"
    with Farm.connect(settings) as farm:
        built = farm.repository("demo", arch)
    console.print(f"  {built.baseurl}", soft_wrap=True)
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


def _type(demo: Demo, *words: str) -> int:
    """Run `farm` as a person would, on this terminal; its exit code."""
    console.print(f"[bold]$ farm {shlex.join(words)}[/bold]", soft_wrap=True)
    farm = local[str(Path(sys.executable).parent / "farm")]
    code = farm[list(words)].with_env(**demo.environment).popen(stdin=None, stdout=None, stderr=None).wait()
    return int(code)


def _go_on(demo: Demo, seconds: float) -> None:
    settings = demo.settings
    needed = {key: value for key, value in demo.environment.items() if value != str(Settings.from_env({}).data)}
    prefix = "".join(f"export {key}={shlex.quote(value)}\n    " for key, value in needed.items())
    repositories = str(settings.repositories_dir / "demo")
    again = "make demo"
    if settings.repositories == PULP:
        repositories, again = f"in Pulp, whose data is in {settings.data / 'pulp'}", "make demo PULP=1"
        up = f"python -m deploy.pulp.local up --data {settings.data / 'pulp'} --cache {settings.cache / 'pulp'}"
        prefix = f"{up}     # in a terminal of its own\n    {prefix}"
    console.print(
        f"""
Done in {seconds:.0f} s. Everything is in {settings.data}; a second `{again}` takes seconds.
Repositories: {repositories}     Logs of the processes: {settings.data / "log"}

Go on by hand:
    source .venv/bin/activate
    {prefix}farm up                                      # in a terminal of its own; Ctrl-C drains
    farm list                                    # the builds above are all there
    farm log BUILD                               # the log; of the failed step, if one failed
    farm build --git URL --target demo --arch {_arch()} --wait
    farm repo demo                               # a .repo file for dnf

The pages show what was built: while `farm up` runs, open http://127.0.0.1:{settings.server_port} in a browser,
and log in with the token that `farm token new --role maintainer` prints.
""",
        markup=False,
        soft_wrap=True,
    )


def _title(text: str) -> None:
    console.rule(f"[bold]{text}", align="left")


if __name__ == "__main__":
    sys.exit(main())
