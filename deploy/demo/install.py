"""The demo's last step: dnf installs a package from the repository that it is in, and the package is run.

The root is a folder; dnf is the host's, with its own configuration here, so that the host is not changed.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.demo.commands import run
from farm.model.arch import Arch

_MACROS = "%_dbpath /var/lib/rpm\n"


def install(root: Path, packages: Sequence[str], repositories: Mapping[str, str], *, arch: Arch) -> str:
    """Install into a new root at `root` from repositories by name and URL. Returns dnf's output. Raises DemoError."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    (home / ".rpmmacros").write_text(_MACROS)
    config = root.parent / "dnf.conf"
    config.write_text(_config(root.parent, repositories))
    argv = [
        "dnf",
        "--assumeyes",
        f"--config={config}",
        f"--installroot={root}",
        f"--forcearch={arch.rpm}",
        "--releasever=1",
    ]
    return run([*argv, "install", *packages], env={"HOME": str(home)})


def run_installed(root: Path, argv: Sequence[str]) -> str:
    """The output of a command of the root. Raises DemoError when it fails."""
    return run(["chroot", str(root), *argv])


def _config(folder: Path, repositories: Mapping[str, str]) -> str:
    main = {
        "cachedir": str(folder / "cache"),
        "logdir": "/var/log",
        "reposdir": "/dev/null",
        "plugins": "0",
        "gpgcheck": "0",
        "install_weak_deps": "0",
        "tsflags": "nodocs",
    }
    sections = {"main": main}
    for name, url in repositories.items():
        sections[name] = {"name": name, "baseurl": url, "enabled": "1", "metadata_expire": "0"}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()) for name, keys in sections.items()
    )
