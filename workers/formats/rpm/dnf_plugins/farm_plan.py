"""A dnf 4 plugin: writes what the transaction installs and removes, before rpm runs the first scriptlet.

Owns one line of JSON: see `workers.formats.rpm.plan`. dnf 4.14 calls `pre_transaction` after the download, the
signature check and rpm's test run, and just before it starts the transaction. Runs on the host's Python, with the
host's rpm.
"""

import json
import os
import stat
from collections.abc import Iterable
from typing import Any

import dnf
import rpm

#: "packages" or "all" (with provides and files); empty if the plugin must not write a plan.
_WANTED = os.environ.get("FARM_PLAN", "")  # noqa: TID251 - dnf reads this file, and has no settings of the farm
_PIPE = "/work/plan"
_HANGS_AT_PIPES = "4.18.0"
_SENSES = ((rpm.RPMSENSE_LESS, "<"), (rpm.RPMSENSE_GREATER, ">"), (rpm.RPMSENSE_EQUAL, "="))


class FarmPlan(dnf.Plugin):  # type: ignore[misc]
    """Writes the plan, or stops the transaction. dnf ignores all exceptions of a plugin except its own class."""

    name = "farm_plan"

    def __init__(self, base: Any, cli: Any) -> None:
        super().__init__(base, cli)
        self._is_written = False

    def resolved(self) -> None:
        # dnf skips the next hook if the transaction is empty.
        if not self.base.transaction:
            self._write({"added": [], "removed": []})

    def pre_transaction(self) -> None:
        try:
            plan = self._plan()
        except Exception as error:
            words = (
                str(error)
                if isinstance(error, NeverEndsError)
                else f"it cannot be read: {type(error).__name__}: {error}"
            )
            self._write({"added": [], "removed": [], "refused": _text(words)[:1000]})
            raise dnf.exceptions.Error(f"the plan of the transaction cannot be made: {error}") from error
        self._write(plan)

    def _plan(self) -> dict[str, object]:
        transaction = self.base.transaction
        if not transaction:
            return {"added": [], "removed": []}
        added = [_package(package.localPkg()) for package in transaction.install_set]
        # The packages that rpm removes; dnf's own list lacks some of them.
        removed = [_text(one.NEVRA()) for one in self.base._ts if one.Type() == rpm.TR_REMOVED]  # noqa: SLF001
        return {"added": added, "removed": removed}

    def _write(self, plan: dict[str, object]) -> None:
        if not _WANTED or self._is_written:
            return
        self._is_written = True
        try:
            with open(_PIPE, "w", encoding="utf-8") as pipe:  # noqa: PTH123
                pipe.write(json.dumps(plan) + "\n")
        except OSError as error:
            raise dnf.exceptions.Error(f"the plan of the transaction cannot be written: {error}") from error


class NeverEndsError(Exception):
    """rpm would hang."""


def _check_pipes(nevra: str, header: Any) -> None:
    """rpm 4.18.0 opens a named pipe that it has made, and waits for a writer: a bug that 4.18.1 does not have."""
    if rpm.__version__ != _HANGS_AT_PIPES:
        return
    for name, mode in zip(header["filenames"], header["filemodes"], strict=True):
        if stat.S_ISFIFO(mode & 0xFFFF):
            raise NeverEndsError(
                f"{nevra} has the named pipe {name[:200]}, at which rpm {rpm.__version__} of this build host hangs; "
                "build on a host with rpm 4.18.1 or later"
            )


def _package(path: str) -> dict[str, object]:
    reader = rpm.TransactionSet()
    # rpm checks digests here, so the recorded digest is the header's. dnf checks signatures.
    reader.setVSFlags(rpm.RPMVSF_MASK_NOSIGNATURES)
    with open(path, "rb") as file:  # noqa: PTH123
        header = reader.hdrFromFdno(file.fileno())
    epoch = f"{header['epoch']}:" if header["epoch"] else ""
    nevra = f"{header['name']}-{epoch}{header['version']}-{header['release']}.{header['arch']}"
    _check_pipes(nevra, header)
    found: dict[str, object] = {
        "nevra": _text(nevra),
        "digest": _text(header["sha256header"] or "(none)"),
    }
    if _WANTED == "all":
        found["provides"] = list(_provides(header))
        found["files"] = [_text(name) for name in header["filenames"]]
    return found


def _provides(header: Any) -> Iterable[dict[str, str]]:
    columns = (header["providename"], header["provideflags"], header["provideversion"])
    for name, flags, evr in zip(*columns, strict=True):
        op = "".join(sign for sense, sign in _SENSES if flags & sense)
        yield {"name": _text(name), "op": op, "evr": _text(evr)}


def _text(value: str) -> str:
    """The text without the lone surrogates that rpm's binding has for bytes that are not UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
