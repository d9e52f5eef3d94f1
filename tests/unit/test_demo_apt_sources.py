"""The choice of a host's apt sources from which the demo distribution is made."""

from pathlib import Path

import pytest

from deploy.demo.aptsources import Source, host_codename, host_sources, parse_deb822, parse_one_line, render
from deploy.demo.errors import DemoError

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_debian_suites_of_this_release_are_kept(etc_apt: Path) -> None:
    (etc_apt / "sources.list.d" / "debian.sources").write_text(DEB822)
    (source,) = host_sources("bookworm", etc_apt)
    assert source.uris == ("http://mirror.example/debian",)
    assert source.suites == ("bookworm", "bookworm-updates")
    assert source.signed_by.endswith("debian-archive-keyring.gpg")


def test_the_one_line_format_is_read(etc_apt: Path) -> None:
    text = "deb [arch=amd64] http://mirror.example/debian bookworm main\n# deb http://x bookworm main\n"
    (etc_apt / "sources.list").write_text(f"{text}deb-src http://source.example bookworm main\n")
    assert host_sources("bookworm", etc_apt) == (Source(uris=("http://mirror.example/debian",), suites=("bookworm",)),)


def test_no_debian_source_says_what_to_do(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text("deb http://vendor.example/apt vendor-bookworm main\n")
    with pytest.raises(DemoError, match="add Debian's own"):
        host_sources("bookworm", etc_apt)


def test_trust_is_never_taken_over_from_the_host() -> None:
    (source,) = parse_one_line("deb [trusted=yes] http://mirror.example/debian bookworm main")
    assert "rusted" not in render([source], arch="amd64")


def test_a_key_inside_the_file_stays_one_field() -> None:
    text = (
        "Types: deb\nURIs: http://m\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n -----END\n"
    )
    (source,) = parse_deb822(text)
    assert source.stanza(arch="arm64").endswith("Signed-By: \n -----BEGIN\n .\n abc\n -----END\n")


def test_another_system_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID="almalinux"\n')
    with pytest.raises(DemoError, match="almalinux"):
        host_codename(tmp_path / "os-release")
