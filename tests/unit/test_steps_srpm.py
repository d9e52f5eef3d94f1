"""The fetch step's archive is unpacked as plain files side by side, or not at all."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from farm.errors import StoreTrouble
from farm.model.outcome import Outcome
from workers.core.context import Ended
from workers.steps.srpm import _unpack


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def test_files_come_out_as_they_went_in_with_their_times(tmp_path: Path) -> None:
    odd = "latin-\udce9\nname"
    tar = archive(tmp_path / "a.tar", member("a.spec", b"Name: a", mtime=1_700_000_000), member(odd, b"odd"))
    _unpack(tar, tmp_path / "out", Event())
    assert (tmp_path / "out/a.spec").read_bytes() == b"Name: a"
    assert (tmp_path / "out/a.spec").stat().st_mtime == 1_700_000_000
    assert (tmp_path / "out" / odd).read_bytes() == b"odd"


def test_a_file_cannot_be_setuid(tmp_path: Path) -> None:
    _unpack(archive(tmp_path / "a.tar", member("a", mode=0o6777)), tmp_path / "out", Event())
    assert (tmp_path / "out/a").stat().st_mode & 0o6022 == 0


@pytest.mark.parametrize(
    "given",
    [
        member("../up"),
        member("/etc/cron.d/evil"),
        member("folder/file"),
        member(".."),
        member("."),
        member(""),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard", type=tarfile.LNKTYPE, linkname="a.spec"),
        member("folder", type=tarfile.DIRTYPE),
        member("fifo", type=tarfile.FIFOTYPE),
        member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("contiguous", type=tarfile.CONTTYPE),
        member("\x1b]0;owned\x07", type=tarfile.SYMTYPE, linkname="x"),
        member("latin-\udce9/" + "x" * 500),
    ],
    ids=lambda given: repr(given[0].name[:20]) + given[0].type.decode(),
)
def test_anything_but_a_plain_file_is_refused(tmp_path: Path, given: tuple[tarfile.TarInfo, bytes]) -> None:
    tar = archive(tmp_path / "a.tar", member("a.spec"), given)
    with pytest.raises(Ended) as refused:
        _unpack(tar, tmp_path / "out", Event())
    assert refused.value.outcome is Outcome.FAILED
    assert refused.value.reason.isprintable()
    assert len(refused.value.reason) < 300
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.spec"]


def _cut(whole: bytes) -> bytes:
    return whole[:700]


def _scrambled(whole: bytes) -> bytes:
    return b"\xff" * 512 + whole[512:]


@pytest.mark.parametrize("damage", [_cut, _scrambled, lambda _: b"", lambda _: b"no tar" * 1000])
def test_a_damaged_archive_is_the_stores_trouble(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = archive(tmp_path / "a.tar", member("a.spec", b"x" * 2000))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreTrouble, match=r"a\.tar"):
        _unpack(path, tmp_path / "out", Event())
