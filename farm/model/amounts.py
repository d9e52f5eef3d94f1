"""Durations, ages and sizes in words, for the command line and for pages."""

from datetime import UTC, datetime

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_KIB = 1024


def duration(seconds: float | None) -> str:
    """`0.8 s`, `12 s`, `3 min 05 s`, `2 h 07 min`, `4 d 03 h`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((_DAY_S, "d", _HOUR_S, "h"), (_HOUR_S, "h", _MINUTE_S, "min")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // part_s:02d} {part}"
    return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s" if whole >= _MINUTE_S else f"{whole} s"


def ago(at: datetime | None) -> str:
    """The time since then, in one unit: `12 s`, `3 min`, `2 h`, `4 d`."""
    if at is None:
        return ""
    seconds = max(0, round((datetime.now(UTC) - at).total_seconds()))
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit}"
    return f"{seconds} s"


def since(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from start to end, or to now while there is no end."""
    return ((end or datetime.now(UTC)) - start).total_seconds() if start else None


def size(size_bytes: int) -> str:
    """`812 B`, `4.2 KiB`, `117 MiB`."""
    number = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < _KIB:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= _KIB
    return f"{number:.1f} TiB"
