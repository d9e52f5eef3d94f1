"""The farm's library: what to build, what became of it, and how to ask for it. Never imports `workers`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.client import Farm

__all__ = ["Farm"]


def __getattr__(name: str) -> Any:
    # Workers import farm.model and must not pay for, or be able to reach, the scheduler's side.
    if name == "Farm":
        from farm.client import Farm

        return Farm
    raise AttributeError(f"module 'farm' has no attribute {name!r}")
