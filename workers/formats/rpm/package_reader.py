"""The process that reads hostile headers: run as a program, it says what a repository would refuse.

Imports little, since it is started for every build.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

READY = "the reader is ready"
#: Of all of a build's packages together. A distribution's largest builds have a tenth of it.
XML_BYTES = 16 * 2**20
_TEXT_CHARS = 300


def main(argv: Sequence[str]) -> None:
    """`argv` has a file of names, each ended by NUL but the last, and, where the reader has no view of its own, where
    the names' folders are. Writes one JSON document: what is refused, or null."""
    from farm.errors import BadRequest
    from farm.repositories.metadata import entry_of

    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    folders: Mapping[str, str] = json.loads(argv[1]) if len(argv) > 1 else {}
    size_bytes = 0
    reason: str | None = None
    for name in Path(argv[0]).read_bytes().split(b"\0"):
        inside = Path(os.fsdecode(name))
        path = Path(folders.get(str(inside.parent), inside.parent)) / inside.name
        # As JSON has it: nothing that is not printable gets further.
        words = f"the package {json.dumps(path.name[:_TEXT_CHARS])}"
        try:
            entry = entry_of(path, shown=words)
        except MemoryError:
            reason = f"{words} has a header that takes more memory to read than there is for it"
            break
        except BadRequest as error:
            reason = str(error)
            break
        size_bytes += len(entry.primary) + len(entry.filelists) + len(entry.other)
        if size_bytes > XML_BYTES:
            reason = (
                f"the packages have more than {XML_BYTES // 2**20} MiB of metadata, which every user of the repository "
                "would download; give them fewer files, or shorter paths"
            )
            break
    sys.stdout.write(json.dumps({"refused": reason}))


if __name__ == "__main__":
    sys.path[:0] = json.loads(sys.argv[1])
    main(sys.argv[2:])
