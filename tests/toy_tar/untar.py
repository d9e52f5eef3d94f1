"""The package manager of `tar` packages: `python -m tests.toy_tar.untar URL PACKAGE [ROOT]`."""

import sys
import tarfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.toy_tar.index import listed


def install(url: str, package: str, root: Path) -> None:
    path = listed(Path(unquote(urlsplit(url).path)))[package]
    with tarfile.open(path) as tar:
        tar.extractall(root, filter="data")


if __name__ == "__main__":
    install(sys.argv[1], sys.argv[2], Path(*sys.argv[3:] or ["/"]))
