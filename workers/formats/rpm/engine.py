"""The protocol of RPM's engines: make a source package or binary packages in a clean root. No step logic."""

from typing import Protocol

from workers.core.context import StepContext
from workers.formats.base import BuildRequest, Made, SourceRequest


class BuildEngine(Protocol):
    """Both methods raise trouble (RootTrouble, HostUnfit, NetworkTrouble, DiskFull), and LeaseLost when `context.stop`
    is set. The answer reports a fault of the package. The root is removed when they return."""

    def make_source(self, request: SourceRequest, context: StepContext) -> Made: ...

    def build(self, request: BuildRequest, context: StepContext) -> Made: ...
