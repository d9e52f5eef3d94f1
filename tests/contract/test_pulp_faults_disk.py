"""A Pulp whose disk is full: the farm gives a message, and a repeat succeeds once there is space."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deploy.pulp.errors import PulpError
from farm.errors import RepositoryTrouble
from tests.pulp_server import QUICK_PASSWORDS, local_pulp
from tests.pulp_watch import NAME, packages, place

SIZE_BYTES = 24 * 2**20
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")


@contextmanager
def small_disk() -> Iterator[Path]:
    with TemporaryDirectory(prefix="farm-disk-") as folder:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "farm-test", folder], check=True, timeout=10
        )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)


def fill(disk: Path, left_bytes: int) -> Path:
    """Fill the disk up to the given free space."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_bsize - left_bytes)))
    return ballast


def test_a_full_disk_of_pulp_gives_a_message_and_a_repeat_succeeds_when_there_is_space(tmp_path: Path) -> None:
    with small_disk() as disk:
        for name in ("media", "uploads", "work"):
            (disk / name).mkdir()
        settings = {
            **QUICK_PASSWORDS,
            "MEDIA_ROOT": str(disk / "media"),
            "FILE_UPLOAD_TEMP_DIR": str(disk / "uploads"),
            "WORKING_DIRECTORY": str(disk / "work"),
        }
        try:
            running = local_pulp(workers=1, settings=settings)
            with running as pulp, place(pulp, tmp_path, pulp_retry_s=5.0) as farm:
                first = packages(tmp_path, "first")
                farm.backend.add(NAME, first)

                large = packages(tmp_path, "large", payload_bytes=2**20)
                ballast = fill(disk, 2**19)
                with pytest.raises(RepositoryTrouble, match=r"large0.*full.*free some space"):
                    farm.backend.add(NAME, large)
                assert any("storage" in check.what and not check.is_ok for check in farm.backend.check())

                # Space for the upload, none for the publication's metadata.
                small = packages(tmp_path, "small", 2)
                ballast.unlink()
                farm.proxy.when_it_came("POST", "/publications/", lambda: fill(disk, 0) and None)
                with pytest.raises(RepositoryTrouble, match=r"full.*free some space"):
                    farm.backend.add(NAME, small)
                assert farm.served() == farm.served(1)

                ballast.unlink()
                farm.backend.add(NAME, [*large, *small])
                farm.assert_well(first, large, small)
        except PulpError as error:
            pytest.skip(str(error))
