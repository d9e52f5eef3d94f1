"""The message for a mistake in a target's file has the file, the key, its value, and the allowed values."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import BadTarget
from farm.formats.rpm.settings import settings_of
from farm.formats.tables import Invalid
from farm.targets.form import to_target
from farm.targets.load import load_target

GOOD = """
distribution = "Mine"
release = "7"
arches = ["x86_64", "aarch64"]
packages = ["rpm-build"]
rpmdb = "/var/lib/rpm"

[macros]
dist = ".mine7"

[[repositories]]
name = "os"
baseurl = "https://example.org/{release}/{arch}/os"
gpgcheck = false

[mock]
config = "mine-{release}-{arch}"

[limits]
wall_s = 60
"""

MISTAKES = {
    "an unknown key": (
        'release = "7"',
        'release = "7"\nrelase = "8"',
        "'relase' is not a key here; known are distribution, release,",
    ),
    "an unknown key in a repository": (
        'name = "os"',
        'name = "os"\nbasurl = "x"',
        "repositories[0]: 'basurl' is not a key here; known are name, baseurl,",
    ),
    "an unknown limit": ("wall_s = 60", "wall = 60", "limits: 'wall' is not a key here; known are wall_s,"),
    "a missing key": ('distribution = "Mine"\n', "", "the key distribution is missing"),
    "no repositories": (GOOD[GOOD.index("[[rep") : GOOD.index("[mock]")], "", "the key repositories is missing"),
    "no arches": ('["x86_64", "aarch64"]', "[]", "arches: is empty; name at least one of x86_64, aarch64, ppc64le"),
    "an unknown arch": ('"aarch64"', '"sparc"', "arches[1]: 'sparc' is not one of x86_64, aarch64, ppc64le"),
    "an arch twice": ('"aarch64"', '"x86_64"', "arches: x86_64, x86_64 names an arch twice"),
    "a value of the wrong type": ('release = "7"', "release = 7", "release: 7 is not right: expected str, got int"),
    "a release with odd characters": ('"7"', '"7/../8"', "release: '7/../8' is not a release"),
    "an unknown engine": (
        'release = "7"',
        'release = "7"\nengine = "docker"',
        "engine: 'docker' is not one of native, mock",
    ),
    "the mock engine without its table": (
        GOOD,
        GOOD.replace('release = "7"', 'release = "7"\nengine = "mock"').replace(
            '[mock]\nconfig = "mine-{release}-{arch}"', ""
        ),
        "engine: 'mock' needs a [mock] table",
    ),
    "an unknown isolation": (
        "[limits]",
        'isolation = "vm"\n[limits]',
        "mock.isolation: 'vm' is not one of auto, simple, nspawn",
    ),
    "a mock configuration that is an option": ('"mine-{release}', '"--root=x', "mock.config: '--root=x-{arch}' is not"),
    "no packages": ('["rpm-build"]', "[]", "packages: is empty"),
    "a package that is an option": (
        '"rpm-build"',
        '"--installroot=/"',
        "packages[0]: '--installroot=/' is not a package",
    ),
    "a relative database": ('"/var/lib/rpm"', '"var/lib/rpm"', "rpmdb: 'var/lib/rpm' is not an absolute path"),
    "a database outside the root": ('"/var/lib/rpm"', '"/../rpm"', "rpmdb: '/../rpm' is not an absolute path"),
    "a macro name with a dash": ("dist =", "my-dist =", "macros: 'my-dist' is no name of an RPM macro"),
    "a macro name that is too short": ("dist =", "d =", "macros: 'd' is no name of an RPM macro"),
    "an empty macro": ('".mine7"', '""', "macros.dist: is empty, which RPM refuses; write '%{nil}'"),
    "a macro of two lines": ('".mine7"', '"a\\nb"', "macros.dist: 'a\\nb' has a character that is not printable"),
    "two addresses": (
        "gpgcheck",
        'metalink = "https://example.org/m"\ngpgcheck',
        "repositories[0]: repository 'os': baseurl and metalink are given; give exactly one of",
    ),
    "no address": (
        'baseurl = "https://example.org/{release}/{arch}/os"',
        "",
        "repositories[0]: repository 'os': there is no address; give exactly one of baseurl, metalink, mirrorlist",
    ),
    "a check without a key": (
        "gpgcheck = false",
        "",
        "repositories[0]: repository 'os' has no gpgkey to check packages with; add it, or gpgcheck = false",
    ),
    "an address that is no URL": ('"https://example.org', '"example.org', "repositories[0].baseurl: 'example.org/"),
    "an address with a new line": ("/os", "/os\\nproxy=x", "repositories[0].baseurl: "),
    "an unknown variable": (
        "{arch}/os",
        "{basearch}/os",
        "{basearch} in 'https://example.org/{release}/{basearch}/os'",
    ),
    "an arch in a key": (
        "gpgcheck = false",
        'gpgkey = "https://example.org/{arch}"',
        "repositories[0].gpgkey: {arch} in",
    ),
    "a repository's name with blanks": ('"os"', '"o s"', "repositories[0].name: 'o s' is not a repository's name"),
    "a repository twice": (
        "[mock]",
        '[[repositories]]\nname = "os"\nbaseurl = "https://x.org"\ngpgcheck = false\n[mock]',
        "repositories[1].name: 'os' is the name of an earlier repository too",
    ),
    "a repository for another arch": (
        "gpgcheck = false",
        'gpgcheck = false\narches = ["ppc64le"]',
        "repositories[0].arches: ppc64le is not one of the target's arches, x86_64, aarch64",
    ),
    "an arch without a repository": (
        "gpgcheck = false",
        'gpgcheck = false\narches = ["x86_64"]',
        "repositories: none has packages for aarch64",
    ),
    "one version kept": (
        "wall_s = 60",
        "wall_s = 60\n[retention]\nversions = 1",
        "retention.versions: 1 is not between 2 and",
    ),
    "an unknown key in retention": (
        "wall_s = 60",
        "wall_s = 60\n[retention]\nkeep = 3",
        "retention: 'keep' is not a key here; known are versions",
    ),
    "a limit of zero": ("wall_s = 60", "wall_s = 0", "limits.wall_s: 0 is not a limit; it must be above 0"),
    "a limit that is a truth": (
        "wall_s = 60",
        "wall_s = true",
        "limits.wall_s: True is not right: expected int, got bool",
    ),
    "a limit that is no whole number": ("wall_s = 60", "wall_s = 6.5", "limits.wall_s: 6.5 is not right: expected int"),
    "a limit beyond 64 bits": ("wall_s = 60", f"wall_s = {2**70}", "limits.wall_s: "),
    "a release of two lines": ('"7"', '"7\\n"', "release: '7\\n' is not a release"),
    "a macro that is a number": ('".mine7"', "7", "macros.dist: 7 is not right: expected str, got int"),
    "more processes than any kernel has": (
        "wall_s = 60",
        "processes = 9999999",
        "limits.processes: 9999999 is out of range; use 16 to 4194304",
    ),
    "an unknown limit of a package": (
        "[limits]",
        '[[package_limits]]\npackages = ["kernel"]\nmemory = 9\n[limits]',
        "package_limits[0]: 'memory' is not a key here; known are packages, wall_s,",
    ),
    "limits of no package": (
        "[limits]",
        "[[package_limits]]\npackages = []\nwall_s = 9\n[limits]",
        "package_limits[0].packages: is empty; name the source packages",
    ),
    "a package without a limit": (
        "[limits]",
        '[[package_limits]]\npackages = ["kernel"]\n[limits]',
        "package_limits[0]: has no limit; give at least one of wall_s,",
    ),
    "a package's limit of zero": (
        "[limits]",
        '[[package_limits]]\npackages = ["kernel"]\nwall_s = 0\n[limits]',
        "package_limits[0].wall_s: 0 is not a limit",
    ),
    "limits of what is no package": (
        "[limits]",
        '[[package_limits]]\npackages = ["a b"]\nwall_s = 9\n[limits]',
        "package_limits[0].packages[0]: 'a b' is not a package's name",
    ),
    "an unknown lookaside": (
        "[mock]",
        '[lookaside]\nform = "ftp"\nbase_url = "https://x.org"\n[mock]',
        "lookaside.form: 'ftp' is not one of sources, metadata",
    ),
    "a module platform of another form": (
        'release = "7"',
        'release = "7"\nmodule_platform = "el9"',
        "module_platform: 'el9' is not of the form platform:el9",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_its_place_and_the_allowed_values(tmp_path: Path, mistake: str) -> None:
    old, new, said = MISTAKES[mistake]
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(BadTarget) as caught:
        load_target(path, {})
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_the_file_the_mistakes_are_made_in_is_right(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    target = load_target(path, {})
    assert target.name == "mine"
    rpm = settings_of(target)
    assert rpm.macros == (("dist", ".mine7"),)
    assert rpm.mock is not None
    assert rpm.mock.config == "mine-7-{arch}"


@pytest.mark.parametrize("name", ["Mine", "-mine", ".mine", "mi ne", "mine_7", "m\u00ef"])
def test_a_file_whose_name_is_no_target_s_name_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(GOOD)
    with pytest.raises(BadTarget, match="a target's name, which its file gives it"):
        load_target(path, {})


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match=r"absent\.toml: cannot be read: No such file"):
        load_target(tmp_path / "absent.toml", {})
    (tmp_path / "latin.toml").write_bytes(b'distribution = "caf\xe9"')
    with pytest.raises(BadTarget, match="is not UTF-8 at byte 19"):
        load_target(tmp_path / "latin.toml", {})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["distribution", "release", "arches", "packages", "repositories", "macros", "mock", "limits", "retention"]
)


@given(st.dictionaries(_KEYS | st.text(max_size=6), _JSON, max_size=9))
def test_whatever_a_document_holds_only_a_sentence_is_raised(document: dict[str, object]) -> None:
    with suppress(Invalid):
        to_target("mine", document, {})
