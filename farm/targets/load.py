"""Finds targets: the shipped files in this folder, and the operator's folder, whose files go first by name.

farm/targets/form.py checks their content.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from farm.config import Settings
from farm.errors import BadTarget, UnknownArch, UnknownTarget
from farm.formats.tables import Invalid
from farm.model.arch import Arch
from farm.model.target import Target
from farm.targets.form import to_target

SHIPPED = Path(__file__).parent


def load_target(path: Path, variables: Mapping[str, str]) -> Target:
    """The target in one file; its name is the file's, without `.toml`.

    `variables` fill `{…}` in addresses and paths; `{release}` is the file's own, `{arch}` stays for the worker.
    Raises BadTarget, naming the file, the key, its value and what is allowed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return to_target(path.stem, document, variables)
    except OSError as error:
        raise BadTarget(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadTarget(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadTarget(f"{path}: is not TOML: {error}") from error
    except Invalid as error:
        raise BadTarget(f"{path}: {error}") from error


def load_targets(settings: Settings) -> dict[str, Target]:
    """All targets by name, sorted. Raises BadTarget for the first file that is not valid."""
    variables = _variables(settings)
    files = dict(_files(settings))
    return {name: _known(load_target(path, variables), path, files) for name, path in sorted(files.items())}


def survey_targets(settings: Settings) -> dict[str, Target | BadTarget]:
    """All targets by name, sorted; in place of a target with an invalid file its error. Raises BadTarget for a missing
    folder."""
    variables = _variables(settings)
    found: dict[str, Target | BadTarget] = {}
    files = dict(_files(settings))
    for name, path in sorted(files.items()):
        try:
            found[name] = _known(load_target(path, variables), path, files)
        except BadTarget as error:
            found[name] = error
    return found


def find_target(settings: Settings, name: str) -> Target:
    """One target; the files of others are not read, so that an invalid one does not stop builds for this target.

    Raises UnknownTarget, with similar names and all names, and BadTarget.
    """
    files = dict(_files(settings))
    if name not in files:
        raise UnknownTarget(f"there is no target {name!r}; {_suggestion(name, sorted(files))}")
    return _known(load_target(files[name], _variables(settings)), files[name], files)


def pick_arches(target: Target, wanted: Sequence[str | Arch]) -> tuple[Arch, ...]:
    """The arches to build for, in the target's order and each once; all of the target's when none is wanted.

    Raises UnknownArch, with the arch and the arches of the target.
    """
    for arch in wanted:
        if arch not in target.arches:
            has = ", ".join(target.arches)
            raise UnknownArch(f"target {target.name} is not built for {str(arch)!r}; it has {has}")
    return tuple(arch for arch in target.arches if not wanted or arch in wanted)


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(name, path) of every target, the operator's after the shipped one of the same name, so that it wins."""
    found = {path.stem: path for path in SHIPPED.glob("*.toml")}
    own = settings.targets
    if own is not None:
        try:
            if not own.is_dir():
                raise BadTarget(f"FARM_TARGETS {str(own)!r} is not a folder; make it, or unset FARM_TARGETS")
            found |= {path.stem: path for path in own.iterdir() if path.suffix == ".toml"}
        except OSError as error:
            raise BadTarget(f"FARM_TARGETS {str(own)!r} cannot be read: {error.strerror}; make it readable") from error
    return iter(found.items())


def _known(target: Target, path: Path, files: Mapping[str, Path]) -> Target:
    """The target. Raises BadTarget if it uses the packages of a target that does not exist."""
    for source in target.repositories:
        if source.target is not None and source.target not in files:
            there = _suggestion(source.target, sorted(files))
            raise BadTarget(f"{path}: repository {source.name!r}: there is no target {source.target!r}; {there}")
    return target


def _variables(settings: Settings) -> dict[str, str]:
    return {"data": str(settings.data)}


def _suggestion(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}there are {', '.join(names)}"
