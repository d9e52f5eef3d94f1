"""The adversary's wounds of whole hosts: their networks, their clocks, their disks, and the disk that they share."""

import os
import subprocess
from pathlib import Path

from tests.siege.field import Field, Wound
from tests.siege.shape import Role

_FULL_LEAVES_BYTES = 300 * 2**20


def cut_host(at: Field) -> Wound | None:
    """For less than a lease, or for longer."""
    lease_s = at.world.shape.lease_s
    return _cut(at, at.rng.choice([at.rng.uniform(2.0, 8.0), lease_s + at.rng.uniform(3.0, 15.0)]), "cut-host")


def cut_for_good(at: Field) -> Wound | None:
    """Once: until the end of the siege, when it has late reports to bring. A new host takes its place meanwhile."""
    if at.is_one_cut_for_good:
        return None
    wound = _cut(at, 24 * 3600.0, "cut-for-good")
    if wound is not None:
        at.is_one_cut_for_good = True
        name = f"host{len(at.world.hosts) + 1}"
        at.world.add_host(name, tuple(Role))
        at.world.timeline.add("adversary", f"{name} takes the place of {wound.victim}")
    return wound


def _cut(at: Field, lasts_s: float, kind: str) -> Wound | None:
    host = _well_host(at)
    if host is None:
        return None
    workers = at.world.members.workers(host)
    if not at.may_hurt(workers):
        return None
    is_long = lasts_s > at.world.shape.lease_s
    if is_long:
        at.note(workers, lasts_s)
    at.world.ill_hosts.add(host)
    labels = at.labels_on(workers)
    at.world.network.cut(host)
    if is_long:
        at.watcher.expect_elsewhere(labels, host)

    def mend() -> None:
        at.world.network.mend(host)
        at.world.ill_hosts.discard(host)

    return Wound(kind=kind, victim=host, lasts_s=lasts_s, heal=mend)


def step_clock(at: Field) -> Wound | None:
    """By hours, in either direction, for as long as the siege lasts."""
    return _step(at, at.rng.choice(sorted(at.world.hosts)))


def step_scheduler(at: Field) -> Wound | None:
    """The same of a scheduler's, whose instants are what SQL has."""
    return _step(at, at.rng.choice([member.name for member in at.world.members.schedulers()]))


def _step(at: Field, name: str) -> Wound | None:
    if not at.world.has_clocks:
        return None
    step_s = at.rng.choice([-1, 1]) * at.rng.randint(60, 6 * 3600)
    at.world.set_clock(name, step_s)
    return Wound(
        kind="step-clock",
        victim=f"{name} by {step_s:+} s",
        lasts_s=24 * 3600.0,
        heal=lambda: at.world.set_clock(name, 0),
    )


def fill_scratch(at: Field) -> Wound | None:
    """To the last byte, or until a command may not go on."""
    host = _well_host(at)
    if host is None or not at.may_hurt(at.world.members.workers(host)):
        return None
    filler = at.world.hosts[host] / "filler"
    leaves_bytes = at.rng.choice([0, _FULL_LEAVES_BYTES])
    at.world.ill_hosts.add(host)
    _fill(filler, leaves_bytes)

    def free() -> None:
        filler.unlink(missing_ok=True)
        at.world.ill_hosts.discard(host)

    victim = f"{host}, {leaves_bytes >> 20} MiB left"
    return Wound(kind="fill-scratch", victim=victim, lasts_s=at.rng.uniform(4.0, 12.0), heal=free)


def fill_store(at: Field) -> Wound | None:
    if not at.may_hurt(at.world.members.workers()):
        return None
    filler = at.world.store / "filler"
    _fill(filler, 0)
    return Wound(
        kind="fill-store",
        victim="artifacts",
        lasts_s=at.rng.uniform(2.0, 5.0),
        heal=lambda: filler.unlink(missing_ok=True),
    )


def freeze_store(at: Field) -> Wound | None:
    """All writers to it wait. It thaws by itself, even if the siege is killed meanwhile."""
    lasts_s = at.rng.uniform(2.0, 6.0)
    script = 'fsfreeze --freeze "$0" && sleep "$1"; fsfreeze --unfreeze "$0"'
    argv = ["sh", "-c", script, str(at.world.store), f"{lasts_s:.1f}"]
    freezer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Wound(kind="freeze-store", victim="artifacts", lasts_s=lasts_s + 0.5, heal=freezer.wait)


def _well_host(at: Field) -> str | None:
    """One whose loss leaves another of each role. One host is ill at a time, but for the one that is for good."""
    if len(at.world.ill_hosts) > int(at.is_one_cut_for_good):
        return None
    well = at.hosts()
    return at.rng.choice(well) if len(well) > 1 else None


def _fill(filler: Path, leaves_bytes: int) -> None:
    with filler.open("wb") as file:
        found = os.statvfs(filler)
        size_bytes = found.f_bavail * found.f_frsize - leaves_bytes
        while size_bytes > 4096:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size_bytes)
            except OSError:
                size_bytes //= 2
