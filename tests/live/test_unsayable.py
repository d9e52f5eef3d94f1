"""A header that metadata cannot say is refused with its tag and byte; rpmbuild makes the packages."""

import subprocess
from pathlib import Path

import pytest

from farm.formats.rpm.entry import Refused, entry_of

_PREAMBLE = ("Summary", "License", "URL", "Packager", "Vendor", "Group")
_DEPENDENCIES = ("Provides", "Requires", "Recommends", "Conflicts")


def _built(folder: Path, **texts: bytes) -> str:
    """The package of a spec in which these parts have such text."""
    tags = {"Summary": b"s", "License": b"MIT"} | {key: value for key, value in texts.items() if key[0].isupper()}
    spec = b"\n".join(
        [
            b"%define _invalid_encoding_terminates_build 0",
            *(b"%s: %s" % pair for pair in ((b"Name", b"n"), (b"Version", b"1"), (b"Release", b"1"))),
            b"BuildArch: noarch",
            *(key.encode() + b": " + value for key, value in tags.items()),
            b"%description\n" + texts.get("description", b"d"),
            b"%install\nmkdir -p %{buildroot}/x\ntouch '%{buildroot}/x/" + texts.get("file", b"f") + b"'",
            b"%post\n: " + texts.get("script", b"x"),
            b"%files\n/x\n%changelog",
            b"* Thu Jan 01 2026 " + texts.get("author", b"A") + b" <a@b> - 1-1\n- " + texts.get("changelog", b"x"),
        ]
    )
    (folder / "n.spec").write_bytes(spec + b"\n")
    argv = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}", str(folder / "n.spec")]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    (rpm,) = (folder / "RPMS").rglob("*.rpm")
    return str(rpm)


_BYTES = (b"\x01", b"\xef\xbf\xbe", b"\xed\xa0\x80")
_TAGS = (*_PREAMBLE, *_DEPENDENCIES, "Provides", "Provides", "changelog", "author", "author")


# rpmbuild takes a second for each: a tag has one of the bytes.
@pytest.mark.parametrize(("tag", "byte"), [(tag, _BYTES[n % 3]) for n, tag in enumerate(_TAGS)])
def test_a_byte_that_xml_does_not_have_is_named_with_its_tag(tmp_path: Path, tag: str, byte: bytes) -> None:
    rpm = _built(tmp_path, **{tag: b"ab" + byte + b"c"})
    with pytest.raises(Refused, match="cannot be in a repository's metadata") as refused:
        entry_of(rpm, shown="n")
    said = str(refused.value)
    assert (tag if tag[0].isupper() else "%changelog") in said
    assert {1: "control character 0x01", 3: "U+FFFE" if byte[0] == 0xEF else "0xed 0xa0 0x80"}[len(byte)] in said
    assert "byte 4" in said if tag == "changelog" else "byte 2" in said
    assert said.isprintable()


@pytest.mark.parametrize("what", ["description", "file"])
def test_a_character_that_is_none_is_named_in_texts_and_files(tmp_path: Path, what: str) -> None:
    rpm = _built(tmp_path, **{what: b"ab\xef\xbf\xbe"})
    with pytest.raises(Refused, match="U\\+FFFE, which is no character, at byte 2"):
        entry_of(rpm, shown="n")


@pytest.mark.parametrize("tag", ["Summary", "Provides", "changelog", "author"])
def test_text_in_latin_1_is_published_as_createrepo_c_does(tmp_path: Path, tag: str) -> None:
    assert "ä" in b"".join(entry_of(_built(tmp_path, **{tag: b"ab\xe4"}), shown="n")).decode().replace("&#xE4;", "ä")


def test_a_script_may_have_any_byte(tmp_path: Path) -> None:
    """No metadata has it."""
    entry_of(_built(tmp_path, script=b"printf '\x1b[1m\x01'"), shown="n")
