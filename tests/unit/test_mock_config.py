"""mock's configuration files: the same text for the same target, older than any root cache, and only literals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.errors import BadTarget
from farm.formats.rpm.settings import MockSettings, RpmSettings
from farm.model.arch import Arch
from farm.model.target import EngineName, Target
from workers.formats.rpm.mock.config import config_for, config_text

_MACROS = (("dist", ".el9"),)
TARGET = Target(
    name="alma-9",
    distribution="almalinux",
    release="9",
    engine=EngineName.MOCK,
    arches=(Arch.X86_64, Arch.AARCH64),
    repositories=(),
    packages=(),
    table=RpmSettings(macros=_MACROS, mock=MockSettings(config="almalinux-9-{arch}")).table,
)


class _Options(dict[str, Any]):
    """As mock's own options are: `macros`, `nspawn_args` and `plugin_conf` are there."""


def with_settings(*, macros: tuple[tuple[str, str], ...] = _MACROS, mock: MockSettings | None = None) -> Target:
    return replace(TARGET, table=RpmSettings(macros=macros, mock=mock).table)


def _executed(text: str) -> tuple[list[str], dict[str, Any]]:
    included: list[str] = []
    options = _Options(
        macros={},
        nspawn_args=["--capability=cap_ipc_lock"],
        plugin_conf={"root_cache_opts": {}, "package_state_opts": {}},
    )
    exec(text, {"config_opts": options, "include": included.append})
    return included, options


def test_the_hosts_own_configuration_is_included_by_name() -> None:
    included, options = _executed(config_text(TARGET, Arch.AARCH64))
    assert included == ["almalinux-9-aarch64.cfg"]
    assert options["macros"] == {"%dist": ".el9"}
    assert options["rpmbuild_networking"] is False
    assert options["package_manager_max_attempts"] == 3


def test_nspawn_stays_in_the_farms_cgroup_and_nothing_waits_for_it_to_register() -> None:
    _, options = _executed(config_text(TARGET, Arch.X86_64))
    assert options["nspawn_args"] == ["--capability=cap_ipc_lock", "--keep-unit", "--register=no"]
    assert options["plugin_conf"]["system_monitor_enable"] is False


def test_a_configuration_may_be_a_path() -> None:
    target = replace(TARGET, table=RpmSettings(mock=MockSettings(config="/etc/farm/own-{arch}.cfg")).table)
    assert _executed(config_text(target, Arch.X86_64))[0] == ["/etc/farm/own-x86_64.cfg"]


def test_options_are_read_as_mock_reads_them_and_reach_into_plugins() -> None:
    options = (
        ("use_bootstrap", "false"),
        ("plugin_conf.ccache_enable", "True"),
        ("plugin_conf.ccache_opts.max_cache_size", "4G"),
        ("opstimeout", "300"),
        ("chrootgid", "none"),
    )
    target = with_settings(mock=MockSettings(config="x", options=options))
    found = _executed(config_text(target, Arch.X86_64))[1]
    assert (found["use_bootstrap"], found["opstimeout"], found["chrootgid"]) == (False, 300, None)
    assert found["plugin_conf"]["ccache_enable"] is True
    assert found["plugin_conf"]["ccache_opts"] == {"max_cache_size": "4G"}


def test_values_stay_values() -> None:
    evil = "'] = 1; import os; os.abort() #\n"
    target = replace(
        TARGET,
        table=RpmSettings(macros=(("evil", evil),), mock=MockSettings(config="x", options=(("key", evil),))).table,
    )
    options = _executed(config_text(target, Arch.X86_64))[1]
    assert (options["macros"]["%evil"], options["key"]) == (evil, evil)


@pytest.mark.parametrize("key", ["a'b", "", "a..b", "a.b.c.d.e", "x y"])
def test_a_key_that_is_no_name_is_refused(key: str) -> None:
    target = replace(TARGET, table=RpmSettings(mock=MockSettings(config="x", options=((key, "1"),))).table)
    with pytest.raises(BadTarget, match="is not a name"):
        config_text(target, Arch.X86_64)


def test_a_target_without_a_mock_section_is_told_to_add_one() -> None:
    with pytest.raises(BadTarget, match=r"add one with its `config`"):
        config_text(with_settings(macros=_MACROS), Arch.X86_64)


def test_a_file_is_written_once_and_is_older_than_any_root_cache(tmp_path: Path) -> None:
    first = config_for(TARGET, Arch.X86_64, tmp_path / "mock")
    status = first.stat()
    assert config_for(TARGET, Arch.X86_64, tmp_path / "mock") == first
    assert first.stat() == status
    assert status.st_mtime < 10**9
    assert status.st_mode & 0o777 == 0o644
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_another_definition_is_another_file_and_another_root(tmp_path: Path) -> None:
    other = replace(
        TARGET, table=RpmSettings(macros=(("dist", ".el9_1"),), mock=MockSettings(config="almalinux-9-{arch}")).table
    )
    first, second = (config_for(target, Arch.X86_64, tmp_path) for target in (TARGET, other))
    roots = [_executed(path.read_text())[1]["root"] for path in (first, second)]
    assert first != second
    assert roots[0] != roots[1]
    assert all(root.startswith("farm-alma-9-x86_64-") for root in roots)
