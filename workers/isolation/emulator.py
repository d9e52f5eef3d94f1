"""The arches that run on this machine: its own, and each for which the kernel has a working emulator."""

import platform
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.errors import HostUnfit
from farm.model.arch import Arch
from workers.core.run import CommandFailed, capture

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_TIMEOUT_S = 10.0
_PROBE_CODE = 42
#: The instructions of exit(42) on each arch.
_PROBE_INSTRUCTIONS = {
    Arch.X86_64: "b83c000000bf2a0000000f05",
    Arch.AARCH64: "400580d2a80b80d2010000d4",
    Arch.PPC64LE: "2a0060380100003802000044",
}
_ELF_MACHINES = {Arch.X86_64: 62, Arch.AARCH64: 183, Arch.PPC64LE: 21}


def native_arch() -> Arch | None:
    machine = platform.machine()
    return Arch(machine) if machine in tuple(Arch) else None


def arches() -> tuple[Arch, ...]:
    """The arches whose programs run here, the native one first."""
    native = native_arch()
    emulated = tuple(arch for arch in Arch if arch is not native and emulator_problem(arch) is None)
    return ((native,) if native else ()) + emulated


def require_arch(arch: Arch) -> None:
    """Raises HostUnfit, with advice, if programs of that arch do not run here."""
    if arch is native_arch():
        return
    if problem := emulator_problem(arch):
        raise HostUnfit(f"this host cannot run {arch}: {problem}")


def emulator_problem(arch: Arch) -> str | None:
    """The reason why programs of that arch do not run; None if one ran. Probed again when the kernel's entry changes,
    and some time after a failed probe."""
    try:
        entry = (_BINFMT / f"qemu-{arch.rpm}").read_text()
    except OSError:
        return f"no emulator is registered; install qemu-user-static and register qemu-{arch.rpm} with binfmt_misc"
    return _entry_problem(entry) or _probe(arch, entry)


def _entry_problem(entry: str) -> str | None:
    if not entry.startswith("enabled"):
        return "its binfmt_misc entry is disabled; write 1 to it"
    flags = re.search(r"^flags: (\w*)$", entry, re.MULTILINE)
    if not flags or "F" not in flags[1]:
        return "its binfmt_misc entry lacks the F flag, so the emulator is not found inside a root; register it with F"
    return None


class Probes:
    """Remembers the answers of `ask` for an arch and its entry in the kernel. None is remembered always. A problem is
    remembered for PROBLEM_S, since a busy host may be its only cause, and for twice as long each time that it is still
    there, since a probe that hangs costs the caller seconds."""

    PROBLEM_S = 30.0
    PROBLEM_AT_MOST_S = 3600.0

    def __init__(self, ask: Callable[[Arch], str | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[tuple[Arch, str], _Probed] = {}

    def __call__(self, arch: Arch, entry: str) -> str | None:
        known = self._known.get((arch, entry))
        if known is None or (known.problem is not None and self._clock() >= known.until):
            kept_s = self.PROBLEM_S if known is None else min(2 * known.kept_s, self.PROBLEM_AT_MOST_S)
            problem = self._ask(arch)
            known = self._known[arch, entry] = _Probed(problem=problem, kept_s=kept_s, until=self._clock() + kept_s)
        return known.problem


@dataclass(frozen=True, kw_only=True)
class _Probed:
    problem: str | None
    kept_s: float
    until: float


def _run_probe(arch: Arch) -> str | None:
    """Run the smallest possible program of that arch."""
    with tempfile.TemporaryDirectory(prefix="farm-probe-") as name:
        program = Path(name) / "probe"
        program.write_bytes(probe_program(arch))
        program.chmod(0o755)
        try:
            capture([program], cwd=Path(name), timeout_s=_TIMEOUT_S, limit_bytes=1024, ok_codes=(_PROBE_CODE,))
        except (CommandFailed, HostUnfit) as error:
            return f"its emulator does not run a probe: {error}"
    return None


_probe = Probes(_run_probe)


def probe_program(arch: Arch) -> bytes:
    """An ELF file of one segment that exits with 42: 64 bytes of header, 56 of program header, the instructions."""
    code = bytes.fromhex(_PROBE_INSTRUCTIONS[arch])
    base, offset = 0x10000, 120
    size = offset + len(code)
    # 64-bit, little-endian. On ppc64le the flags are 2, for ABI version 2, in which the entry point is the code itself.
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    flags = 2 if arch is Arch.PPC64LE else 0
    header = _pack(2, (2, _ELF_MACHINES[arch])) + _pack(4, (1,)) + _pack(8, (base + offset, 64, 0))
    header += _pack(4, (flags,)) + _pack(2, (64, 56, 1, 0, 0, 0))
    segment = _pack(4, (1, 5)) + _pack(8, (0, base, base, size, size, 0x10000))
    return ident + header + segment + code


def _pack(width: int, values: tuple[int, ...]) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in values)
