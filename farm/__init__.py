"""The farm's library: requests, builds and their results. Never imports `workers`."""

# Type checkers take it for true, whatever it is; typing itself takes longer to import than a short process should.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from farm.client import Farm

__all__ = ["Farm"]


def __getattr__(name: str) -> object:
    # Workers import farm.model and must not pay for, or be able to reach, the scheduler's side.
    if name == "Farm":
        from farm.client import Farm

        return Farm
    raise AttributeError(f"module 'farm' has no attribute {name!r}")
