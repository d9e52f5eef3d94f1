"""Facts about this machine."""

import struct

import pytest

from farm.config import Settings
from farm.errors import HostUnfit
from farm.model.arch import Arch
from workers.isolation import emulator
from workers.isolation.emulator import Probes, probe_program
from workers.isolation.facts import HostFacts, host_facts


def test_facts_are_of_this_machine(tmp_path: object) -> None:
    facts = host_facts(Settings.from_env({"FARM_DATA": f"{tmp_path}"}))
    assert isinstance(facts, HostFacts)
    assert facts.cpus > 0
    assert facts.memory_bytes > 2**28
    assert facts.disk_free_bytes > 0
    assert facts.arches[:1] == ((facts.native_arch,) if facts.native_arch else ())


def test_the_native_probe_runs(tmp_path: object) -> None:
    arch = emulator.native_arch()
    if arch is None:
        pytest.skip("none of the farm's arches is native here")
    assert emulator._probe(arch, "native") is None


@pytest.mark.parametrize("arch", list(Arch))
def test_a_probe_is_a_whole_elf_file_of_its_arch(arch: Arch) -> None:
    program = probe_program(arch)
    machine = {Arch.X86_64: 62, Arch.AARCH64: 183, Arch.PPC64LE: 21}[arch]
    assert struct.unpack_from("<4sBB", program) == (b"\x7fELF", 2, 1)
    assert struct.unpack_from("<HH", program, 16) == (2, machine)
    entry, offset = struct.unpack_from("<QQ", program, 24)
    assert offset == 64
    _, flags, _, base, _, size = struct.unpack_from("<IIQQQQ", program, 64)
    assert flags == 5
    assert (entry - base, size) == (120, len(program))


def test_an_emulator_that_a_root_cannot_reach_is_refused() -> None:
    assert emulator._entry_problem("enabled\ninterpreter /usr/bin/qemu\nflags: POCF\n") is None
    assert "F flag" in (emulator._entry_problem("enabled\ninterpreter /usr/bin/qemu\nflags: OC\n") or "")
    assert "disabled" in (emulator._entry_problem("disabled\nflags: F\n") or "")


def test_a_probe_that_failed_is_asked_again_and_one_that_ran_is_not() -> None:
    answers: list[str | None] = ["too busy", None]
    now = [0.0]
    probe = Probes(lambda _: answers.pop(0), clock=lambda: now[0])
    for now[0], problem in ((0.0, "too busy"), (29.0, "too busy"), (30.0, None), (10.0**9, None)):
        assert probe(Arch.AARCH64, "entry") == problem
    assert answers == []


def test_a_probe_that_hangs_is_asked_less_and_less_often() -> None:
    asked: list[float] = []
    now = [0.0]

    def hang(_: Arch) -> str:
        asked.append(now[0])
        now[0] += 12.0
        return "it hangs"

    probe = Probes(hang, clock=lambda: now[0])
    while now[0] < 24 * 3600:
        assert probe(Arch.AARCH64, "entry") == "it hangs"
        now[0] += 10.0
    assert asked[1] < 60
    assert len(asked) < 40


def test_a_host_that_cannot_run_an_arch_says_why() -> None:
    foreign = next(arch for arch in Arch if arch is not emulator.native_arch())
    if emulator.emulator_problem(foreign) is None:
        pytest.skip(f"this host runs {foreign}")
    with pytest.raises(HostUnfit, match=f"cannot run {foreign}: .*qemu"):
        emulator.require_arch(foreign)
