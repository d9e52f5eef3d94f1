"""Downloads artifacts of a build: verified, and never over a file with other content."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from farm.artifacts.names import check_name
from farm.errors import BadRequest, StoreTrouble, WrongState
from farm.model.artifact import Artifact
from farm.service.files import StoredFile

_CHUNK_BYTES = 2**20
#: Opens the content of an artifact.
Contents = Callable[[Artifact], BinaryIO]


def download(
    files: Sequence[StoredFile], contents: Contents, into: Path, *, overwrite: bool = False
) -> tuple[Path, ...]:
    """The paths, in the order of the files. Files of one name and different content go into a folder by step.

    Raises WrongState for an existing file with other content, before it writes any file; NotFound for content that is
    no longer kept; StoreTrouble for content with another digest.
    """
    paths = _plan(files, into)
    if not overwrite:
        _refuse_others(paths)
    try:
        for path, file in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(file.artifact, contents, path)
    except OSError as error:
        raise BadRequest(f"{str(into)!r} cannot be written: {error.strerror}; give another folder") from error
    return tuple(paths)


def _plan(files: Sequence[StoredFile], into: Path) -> dict[Path, StoredFile]:
    contents = {(file.artifact.name, file.artifact.sha256): file for file in files}
    names = Counter(name for name, _ in contents)
    return {
        _place(into if names[name] == 1 else into / file.step_name.replace(" ", "."), name): file
        for (name, _), file in contents.items()
    }


def _place(folder: Path, name: str) -> Path:
    # The name was checked when it was stored; it is checked again, since a recipe chose it and it becomes a path here.
    try:
        return folder / check_name(name)
    except ValueError as error:
        raise StoreTrouble(f"an artifact is not downloaded: {error}") from error


def _refuse_others(paths: dict[Path, StoredFile]) -> None:
    for path, file in paths.items():
        if path.is_symlink() or (path.exists() and not (path.is_file() and _digest(path) == file.artifact.sha256)):
            raise WrongState(f"{str(path)!r} exists with other content; remove it, or give --overwrite")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(artifact: Artifact, contents: Contents, path: Path) -> None:
    # The file is a copy, never a link into the store: a user may edit it, and the farm's must not change.
    partial = path.with_name(f".{path.name}.part"[-255:])
    sha256 = hashlib.sha256()
    try:
        with contents(artifact) as source, partial.open("wb") as copy:
            while data := source.read(_CHUNK_BYTES):
                sha256.update(data)
                if copy.tell() + len(data) > artifact.size_bytes:
                    raise StoreTrouble(
                        f"{artifact.name!r} has more than its {artifact.size_bytes} bytes; it is not kept"
                    )
                copy.write(data)
        if sha256.hexdigest() != artifact.sha256:
            raise StoreTrouble(f"{artifact.name!r} in the artifact store does not have the sha256 {artifact.sha256}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
