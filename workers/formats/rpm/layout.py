"""The paths of a package's tree: the folders of a spec and of its sources."""

import posixpath


def joined(folder: str, path: str) -> str | None:
    """A path below the folder, normalized; "" for the root, None for one that leaves the tree."""
    joined = posixpath.normpath(posixpath.join(folder or ".", path))
    if path.startswith("/") or joined.startswith("../") or joined == ".." or "\0" in path:
        return None
    return "" if joined == "." else joined


def below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def package_folder(spec_path: str) -> str:
    """The parent of SPECS/ if the spec is in such a folder, else the spec's own folder."""
    folder = posixpath.dirname(spec_path)
    return posixpath.dirname(folder) if posixpath.basename(folder) == "SPECS" else folder
