"""Writing repodata with createrepo_c's Python bindings."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import createrepo_c

# Fixed, as everything here, so that the same packages give the same repodata.
REVISION = "1"


def write_repodata(directory: Path) -> int:
    """Write `repodata` for the RPMs directly in `directory`; returns how many there are."""
    rpms = sorted(directory.glob("*.rpm"))
    with createrepo_c.RepositoryWriter(str(directory), compression=createrepo_c.GZ_COMPRESSION) as writer:
        writer.repomd.set_revision(REVISION)
        writer.set_num_of_pkgs(len(rpms))
        with ThreadPoolExecutor() as pool:
            for package in pool.map(_read, rpms):
                writer.add_pkg(package)
    return len(rpms)


def _read(path: Path) -> createrepo_c.Package:
    package = createrepo_c.package_from_rpm(str(path), checksum_type=createrepo_c.SHA256)
    package.location_href = path.name
    package.time_file = package.time_build
    return package
