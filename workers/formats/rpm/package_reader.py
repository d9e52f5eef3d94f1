"""The program that reads hostile headers, in a process of its own, and finds packages that a repository would refuse.

It is started twice for every build, and a tiny package builds in a tenth of a second, so it imports very little:
neither json nor pathlib, and of createrepo_c the library alone, without its Python package, which imports subprocess.
"""

import os
import sys
from collections.abc import Sequence

READY = "the reader is ready"
#: The two answers; the reason follows the second.
TAKEN, REFUSED = b"taken", b"refused "
_TEXT_CHARS = 300
_LIBRARY = "createrepo_c"


def main(argv: Sequence[str]) -> None:
    """`argv` has the limit of the metadata in bytes, a file of names, separated by NUL, and, if the reader does not run
    in a sandbox, pairs of a folder of the names and the real folder. Writes TAKEN, or REFUSED and the reason."""
    reason = _problem(int(argv[0]), argv[1], dict(zip(argv[2::2], argv[3::2], strict=True)))
    sys.stdout.buffer.write(TAKEN if reason is None else REFUSED + reason.encode(errors="backslashreplace"))


def _problem(limit_bytes: int, names: str, folders: dict[str, str]) -> str | None:
    from farm.formats.rpm.entry import Refused, entry_of

    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    size_bytes = 0
    with open(names, "rb") as file:  # noqa: PTH123 - to import pathlib takes longer than to read the file
        inside = file.read().split(b"\0")
    for path in inside:
        folder, _, name = os.fsdecode(path).rpartition("/")
        # Escaped by ascii(), so that only printable characters are passed on.
        words = f"the package {name[:_TEXT_CHARS]!a}"
        try:
            texts = entry_of(f"{folders.get(folder, folder)}/{name}", shown=words)
        except MemoryError:
            return f"{words} has a header that takes more memory to read than its limit"
        except Refused as error:
            return str(error)
        size_bytes += sum(map(len, texts))
        if size_bytes > limit_bytes:
            return (
                f"the packages have more than {limit_bytes} bytes of metadata, which every user of the repository "
                "would download, and more than the farm takes of one build; `metadata_bytes` in [limits] of the target "
                "raises that"
            )
    return None


def _find_library(folders: Sequence[str]) -> None:
    """Put an empty module in place of createrepo_c's Python package, so that its library is imported without it."""
    package = type(sys)(_LIBRARY)
    package.__path__ = [f"{folder}/{_LIBRARY}" for folder in folders]
    sys.modules[_LIBRARY] = package


if __name__ == "__main__":
    found = sys.argv[1].split(os.pathsep)
    sys.path[:0] = found
    _find_library(found)
    main(sys.argv[2:])
