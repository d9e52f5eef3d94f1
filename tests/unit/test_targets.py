"""Targets are found by name, the operator's before the shipped ones, and the shipped ones are right."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import BadTarget, UnknownArch, UnknownTarget
from farm.formats.rpm.settings import LookasideForm, settings_of
from farm.model.arch import Arch
from farm.model.target import EngineName
from farm.targets.load import SHIPPED, find_target, load_target, load_targets, pick_arches, survey_targets

SHIPPED_NAMES = (
    "almalinux-10",
    "almalinux-8",
    "almalinux-9",
    "centos-stream-10",
    "centos-stream-9",
    "demo",
    "fedora-44",
    "fedora-45",
)
MINIMAL = """
distribution = "Mine"
release = "7"
arches = ["x86_64"]
packages = ["rpm-build"]

[[repositories]]
name = "os"
baseurl = "https://example.org/{release}/{arch}/os"
gpgcheck = false
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "targets"
    folder.mkdir()
    return Settings(data=tmp_path / "data", targets=folder)


def test_the_shipped_targets_are_all_valid_and_for_three_arches(tmp_path: Path) -> None:
    targets = load_targets(Settings(data=tmp_path))
    assert tuple(targets) == SHIPPED_NAMES
    for name, target in targets.items():
        assert target.name == name
        assert target.arches == tuple(Arch)
        assert all(target.repositories_for(arch) for arch in Arch)


def test_all_targets_load_in_a_moment(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    load_targets(settings)
    times_s = []
    for _ in range(5):
        start = time.perf_counter()
        load_targets(settings)
        times_s.append(time.perf_counter() - start)
    assert min(times_s) < 0.5


@pytest.mark.parametrize("name", [name for name in SHIPPED_NAMES if name != "demo"])
def test_public_targets_check_packages_over_https(tmp_path: Path, name: str) -> None:
    target = find_target(Settings(data=tmp_path), name)
    for source in target.repositories:
        assert source.gpgcheck
        assert source.gpgkey is not None
        assert source.gpgkey.startswith("https://")
        assert "{" not in source.gpgkey
        for arch in target.arches:
            address = source.url_for(arch)
            assert address.startswith("https://")
            assert "{" not in address
            assert target.release in address
    rpm = settings_of(target)
    assert rpm.lookaside is not None
    assert rpm.mock is not None
    assert "{release}" not in rpm.mock.config
    assert rpm.mock.config.endswith("-{arch}")


def test_only_roots_with_a_database_of_another_time_need_mock(tmp_path: Path) -> None:
    """AlmaLinux 8 has Berkeley DB; all others have SQLite, at the place of their release."""
    targets = load_targets(Settings(data=tmp_path))
    assert [name for name, target in targets.items() if target.engine is EngineName.MOCK] == ["almalinux-8"]
    old = {name for name, target in targets.items() if settings_of(target).rpmdb == "/var/lib/rpm"}
    assert old == {"almalinux-8", "almalinux-9", "centos-stream-9", "demo"}


@pytest.mark.parametrize(
    ("name", "dist", "release_macro"),
    [
        ("almalinux-8", ".el8", ("rhel", "8")),
        ("almalinux-10", ".el10", ("rhel", "10")),
        ("centos-stream-9", ".el9", ("rhel", "9")),
        ("fedora-45", ".fc45", ("fedora", "45")),
    ],
)
def test_targets_set_the_macros_that_specs_ask_for(
    tmp_path: Path, name: str, dist: str, release_macro: tuple[str, str]
) -> None:
    macros = dict(settings_of(find_target(Settings(data=tmp_path), name)).macros)
    assert macros["dist"].startswith(dist)
    assert macros[release_macro[0]] == release_macro[1]


def test_lookasides_have_their_distribution_s_form(tmp_path: Path) -> None:
    for name, target in load_targets(Settings(data=tmp_path)).items():
        lookaside = settings_of(target).lookaside
        if lookaside is not None:
            metadata = lookaside.form is LookasideForm.METADATA
            assert metadata == name.startswith("almalinux")


def test_the_demo_lives_in_the_data_folder(tmp_path: Path) -> None:
    demo = find_target(Settings(data=tmp_path / "data"), "demo")
    assert demo.repositories[0].url_for(Arch.AARCH64) == f"file://{tmp_path}/data/demo/distribution/aarch64"
    assert demo.packages == ("demo-build",)
    assert not demo.repositories[0].gpgcheck
    assert demo.limits.wall_s == 1800


def test_an_operator_s_target_is_found_and_replaces_a_shipped_one(settings: Settings) -> None:
    assert settings.targets is not None
    (settings.targets / "mine-7.toml").write_text(MINIMAL)
    (settings.targets / "demo.toml").write_text(MINIMAL)
    assert find_target(settings, "mine-7").repositories[0].url_for(Arch.X86_64) == "https://example.org/7/x86_64/os"
    assert find_target(settings, "demo").distribution == "Mine"
    assert set(load_targets(settings)) == {*SHIPPED_NAMES, "mine-7"}


def test_a_target_can_use_packages_that_the_farm_has_built(settings: Settings) -> None:
    assert settings.targets is not None
    own = '[[repositories]]\nname = "built"\ntarget = "mine-7"\ngpgcheck = false\n'
    (settings.targets / "mine-7.toml").write_text(MINIMAL + own)
    mine = find_target(settings, "mine-7")
    assert [source.target for source in mine.repositories] == [None, "mine-7"]
    pinned = mine.pinned(lambda name: f"https://farm/{name}/5/")
    assert pinned.repositories[1].url_for(Arch.X86_64) == "https://farm/mine-7/5/"
    assert mine.pinned(lambda _: None).repositories == mine.repositories[:1]


def test_a_broken_target_stops_no_other(settings: Settings) -> None:
    assert settings.targets is not None
    (settings.targets / "broken.toml").write_text("\nrelease = ]")
    assert find_target(settings, "demo").name == "demo"
    with pytest.raises(BadTarget, match=r"broken\.toml: is not TOML: .*line 2"):
        load_targets(settings)


def test_a_targets_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match=r"FARM_TARGETS .*nowhere' is not a folder"):
        load_targets(Settings(data=tmp_path, targets=tmp_path / "nowhere"))


def test_an_unknown_target_is_answered_with_close_names_and_all(settings: Settings) -> None:
    with pytest.raises(UnknownTarget, match="no target 'almalinx-9'; did you mean almalinux-9") as caught:
        find_target(settings, "almalinx-9")
    assert all(name in str(caught.value) for name in SHIPPED_NAMES)
    with pytest.raises(UnknownTarget, match="'zzz'; there are almalinux-10, "):
        find_target(settings, "zzz")


@pytest.mark.parametrize("name", ["../farm/targets/demo", "/etc/passwd", "", "demo.toml", "demo\n"])
def test_a_name_cannot_lead_to_another_file(settings: Settings, name: str) -> None:
    with pytest.raises(UnknownTarget):
        find_target(settings, name)


def test_picked_arches_are_in_the_target_s_order_and_once(settings: Settings) -> None:
    demo = find_target(settings, "demo")
    assert pick_arches(demo, []) == demo.arches
    assert pick_arches(demo, ["ppc64le", Arch.X86_64, "ppc64le"]) == (Arch.X86_64, Arch.PPC64LE)
    assert all(isinstance(arch, Arch) for arch in pick_arches(demo, ["ppc64le"]))


@pytest.mark.parametrize("arch", ["s390x", "amd64", "", "X86_64"])
def test_an_arch_that_the_target_lacks_is_named_with_what_it_has(settings: Settings, arch: str) -> None:
    with pytest.raises(UnknownArch, match=f"target demo is not built for '{arch}'; it has x86_64, aarch64, ppc64le"):
        pick_arches(find_target(settings, "demo"), [arch])


def test_a_repository_can_be_for_some_arches_only(tmp_path: Path) -> None:
    extra = (
        '\n[[repositories]]\nname = "more"\nmirrorlist = "https://example.org/m"\ngpgkey = "/k"\narches = ["x86_64"]\n'
    )
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace('["x86_64"]', '["x86_64", "aarch64"]') + extra)
    target = load_target(path, {})
    assert [source.name for source in target.repositories_for(Arch.X86_64)] == ["os", "more"]
    assert [source.name for source in target.repositories_for(Arch.AARCH64)] == ["os"]
    assert target.repositories[1].gpgkey == "file:///k"


def test_every_file_in_the_folder_is_package_data() -> None:
    assert {path.stem for path in SHIPPED.glob("*.toml")} == set(SHIPPED_NAMES)


def test_a_target_says_how_many_versions_of_its_repositories_are_kept(settings: Settings) -> None:
    assert settings.targets is not None
    (settings.targets / "mine-7.toml").write_text(MINIMAL)
    assert find_target(settings, "mine-7").keep_versions == 20
    (settings.targets / "mine-7.toml").write_text(f"{MINIMAL}\n[retention]\nversions = 5\n")
    assert find_target(settings, "mine-7").keep_versions == 5


def test_packages_can_have_limits_of_their_own(settings: Settings) -> None:
    assert settings.targets is not None
    own = '[[package_limits]]\npackages = ["kernel", "python3-*"]\nmemory_bytes = 68_719_476_736\n'
    (settings.targets / "mine-7.toml").write_text(MINIMAL + own)
    mine = find_target(settings, "mine-7")
    assert mine.limits_for("python3-requests") == replace(mine.limits, memory_bytes=2**36)
    assert mine.limits_for("hello") == mine.limits


def test_packages_of_a_target_that_is_not_there_are_a_mistake(settings: Settings) -> None:
    assert settings.targets is not None
    own = '[[repositories]]\nname = "built"\ntarget = "mine-77"\ngpgcheck = false\n'
    (settings.targets / "mine-7.toml").write_text(MINIMAL + own)
    words = r"mine-7\.toml: repository 'built': there is no target 'mine-77'; did you mean mine-7"
    with pytest.raises(BadTarget, match=words):
        find_target(settings, "mine-7")
    assert isinstance(survey_targets(settings)["mine-7"], BadTarget)


TABLE = """
[rpm]
rpmdb = "/usr/lib/sysimage/rpm"
module_platform = "platform:el7"

[rpm.macros]
dist = ".mine7"

[rpm.lookaside]
form = "sources"
base_url = "https://{data}/{release}"

[rpm.mock]
config = "mine-{release}-{arch}"
"""


def test_the_keys_of_a_format_may_stand_at_the_top_or_in_its_table(settings: Settings) -> None:
    assert settings.targets is not None
    at_top = TABLE.replace("[rpm]", "").replace("[rpm.", "[")
    first_line, table = MINIMAL.split("\n\n", 1)
    (settings.targets / "new.toml").write_text(MINIMAL + TABLE)
    (settings.targets / "old.toml").write_text(first_line + at_top + "\n" + table)
    new, old = find_target(settings, "new"), find_target(settings, "old")
    assert new.table == old.table
    rpm = settings_of(new)
    assert (rpm.rpmdb, rpm.macros) == ("/usr/lib/sysimage/rpm", (("dist", ".mine7"),))
    assert rpm.lookaside is not None
    assert rpm.lookaside.base_url == f"https://{settings.data}/7"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('dist = ".mine7"', 'd = ".mine7"', "rpm.macros: 'd' is no name of an RPM macro"),
        ('form = "sources"', 'form = "cvs"', "rpm.lookaside.form: 'cvs' is not one of sources, metadata"),
        ('rpmdb = "/', 'rpmdb = "', "rpm.rpmdb: 'usr/lib/sysimage/rpm' is not an absolute path"),
        ("module_platform", "platform", "rpm: 'platform' is not a key here; known are macros, rpmdb,"),
        ("[rpm]\n", '[macros]\ndist = "x"\n[rpm]\n', "macros: stands in [rpm] too"),
        (TABLE, 'format = "cpio"\n', "format: 'cpio' is not one of rpm"),
        (TABLE, "rpm = 3\n", "rpm: 3 is not a table; write [rpm]"),
    ],
)
def test_a_mistake_in_a_formats_table_is_named_with_the_table(
    settings: Settings, old: str, new: str, said: str
) -> None:
    assert settings.targets is not None
    text = MINIMAL.split("\n\n", 1)[0] + "\n" if old == TABLE else MINIMAL
    path = settings.targets / "mine.toml"
    path.write_text(text + TABLE.replace(old, new))
    with pytest.raises(BadTarget) as caught:
        load_target(path, {"data": "/data"})
    assert str(caught.value).startswith(f"{path}: {said}")
