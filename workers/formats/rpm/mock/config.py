"""mock's configuration files: content-addressed and never touched again, so that mock's root cache stays valid.

mock deletes its root cache when a configuration file is newer than the cache, so a file made for each build would
rebuild every root. Here a file's name is the digest of its text, its mtime is fixed, and values that differ from build
to build are on the command line (`workers.formats.rpm.mock.command`).
"""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from farm.errors import BadTarget
from farm.formats.rpm.settings import RpmSettings, settings_of
from farm.model.arch import Arch
from farm.model.target import Target

_MTIME_S = 946684800  # 2000-01-01: older than any root cache
_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*){0,3}")

#: The settings that the farm needs, whatever the host's own configuration says.
_FARM_OPTIONS: tuple[tuple[str, object], ...] = (
    ("package_manager_max_attempts", 3),  # mock's own default gives up at the first mirror
    ("package_manager_attempt_delay", 5),  # seconds
    ("rpmbuild_networking", False),
    ("print_main_output", True),  # rpmbuild's output comes to the attempt's log while it runs
    ("log_config_file", "logging.ini"),
    ("dynamic_buildrequires", True),
    ("plugin_conf.package_state_enable", True),
    ("plugin_conf.package_state_opts.available_pkgs", False),
    ("plugin_conf.package_state_opts.installed_pkgs", True),
    ("plugin_conf.buildroot_lock_enable", False),  # fails where a repository no longer has an installed package
    ("plugin_conf.system_monitor_enable", False),  # waits two minutes for a machine that is not registered; see below
    ("plugin_conf.hw_info_enable", False),
    ("plugin_conf.compress_logs_enable", False),
    ("plugin_conf.root_cache_opts.compress_program", ""),  # the cache is read far more often than written
)
#: With isolation nspawn a build stays in the farm's cgroup, and so within its limits: systemd-nspawn would move it into
#: its own scope. It must not register either: it would register the unit that it is in, which is the worker's, and mock
#: ends "leftover machines" by their unit.
_NSPAWN_ARGUMENTS = ["--keep-unit", "--register=no"]


def config_for(target: Target, arch: Arch, folder: Path) -> Path:
    """The path of the configuration file of a target and arch, written once under `folder`.

    Raises BadTarget if the target has no mock settings, or an option with a bad name.
    """
    text = config_text(target, arch)
    path = folder / f"farm-{target.name}-{arch}-{_digest(text)}.cfg"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_once(path, text)
    return path


def config_text(target: Target, arch: Arch) -> str:
    """Python that mock executes. Every value in it is a literal, so nothing in a target can become code."""
    settings = settings_of(target)
    if settings.mock is None:
        raise BadTarget(f"target {target.name} has engine mock and no [mock] section; add one with its `config`")
    config = settings.mock.config.replace("{arch}", arch.rpm)
    include = config if config.endswith(".cfg") else f"{config}.cfg"
    lines = [
        "# Made by the farm, named by its own digest. mock drops its root cache when this file is newer: do not edit.",
        f"include({include!r})",
        f"config_opts['root'] = {_root_name(target, arch, settings)!r}",
        *(_assign(key, value) for key, value in _FARM_OPTIONS),
        f"config_opts['nspawn_args'] += {_NSPAWN_ARGUMENTS!r}",
        *(f"config_opts['macros'][{'%' + name!r}] = {value!r}" for name, value in settings.macros),
        *(_assign(key, _typed(value)) for key, value in settings.mock.options),
    ]
    return "\n".join(lines) + "\n"


def _assign(key: str, value: object) -> str:
    """`a.b` sets `config_opts['a']['b']`; a missing level is made."""
    if not _OPTION.fullmatch(key):
        raise BadTarget(f"mock option {key!r} is not a name, or names joined by dots; correct the target's [mock]")
    *levels, last = key.split(".")
    into = "config_opts" + "".join(f".setdefault({level!r}, {{}})" for level in levels)
    return f"{into}[{last!r}] = {value!r}"


def _typed(text: str) -> object:
    """A value as mock's own `--config-opts` reads it."""
    words: dict[str, object] = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None}
    if text in words:
        return words[text]
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def _root_name(target: Target, arch: Arch, settings: RpmSettings) -> str:
    """The farm's own name of root and cache, which separates them from other uses of this configuration."""
    mock = settings.mock
    defining = repr((mock and mock.config, mock and mock.options, settings.macros))
    return f"farm-{target.name}-{arch}-{_digest(defining)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_once(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(text)
    made = Path(file.name)
    made.chmod(0o644)  # read by mock as another user
    os.utime(made, (_MTIME_S, _MTIME_S))
    made.rename(path)
