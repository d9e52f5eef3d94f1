"""The process that reads hostile headers: run as a program, it says what a repository would refuse.

It is started twice for every build, and a tiny package builds in a tenth of a second, so it imports next to nothing:
neither json nor pathlib, and of createrepo_c the library alone, without the package that imports subprocess.
"""

import os
import sys
from collections.abc import Sequence

READY = "the reader is ready"
#: The two answers; behind the second is the reason.
TAKEN, REFUSED = b"taken", b"refused "
#: Of all of a build's packages together. A distribution's largest builds have a tenth of it.
XML_BYTES = 16 * 2**20
_TEXT_CHARS = 300
_LIBRARY = "createrepo_c"


def main(argv: Sequence[str]) -> None:
    """`argv` has a file of names, each ended by NUL but the last, and, where the reader has no view of its own, pairs
    of a name's folder and of where that is. Writes TAKEN, or REFUSED and why."""
    reason = _problem(argv[0], dict(zip(argv[1::2], argv[2::2], strict=True)))
    sys.stdout.buffer.write(TAKEN if reason is None else REFUSED + reason.encode(errors="backslashreplace"))


def _problem(names: str, folders: dict[str, str]) -> str | None:
    from farm.formats.rpm.entry import Refused, entry_of

    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    size_bytes = 0
    with open(names, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import than the reading takes
        inside = file.read().split(b"\0")
    for path in inside:
        folder, _, name = os.fsdecode(path).rpartition("/")
        # As ascii() has it: nothing that is not printable gets further.
        words = f"the package {name[:_TEXT_CHARS]!a}"
        try:
            texts = entry_of(f"{folders.get(folder, folder)}/{name}", shown=words)
        except MemoryError:
            return f"{words} has a header that takes more memory to read than there is for it"
        except Refused as error:
            return str(error)
        size_bytes += sum(map(len, texts))
        if size_bytes > XML_BYTES:
            return (
                f"the packages have more than {XML_BYTES // 2**20} MiB of metadata, which every user of the repository "
                "would download; give them fewer files, or shorter paths"
            )
    return None


def _find_library(folders: Sequence[str]) -> None:
    """Let createrepo_c's library be imported without its package, by an empty one in its place."""
    package = type(sys)(_LIBRARY)
    package.__path__ = [f"{folder}/{_LIBRARY}" for folder in folders]
    sys.modules[_LIBRARY] = package


if __name__ == "__main__":
    found = sys.argv[1].split(os.pathsep)
    sys.path[:0] = found
    _find_library(found)
    main(sys.argv[2:])
