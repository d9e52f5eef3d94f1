"""The protocol of RPM's engines: make a source package or binary packages in a clean root. No step logic."""

from typing import Protocol

from workers.core.context import StepContext
from workers.formats.base import BuildRequest, Made, SourceRequest
from workers.formats.rpm.asking import AskRequest, Told


class BuildEngine(Protocol):
    """All methods raise trouble (RootTrouble, HostUnfit, NetworkTrouble, DiskFull), and LeaseLost when `context.stop`
    is set. The answer reports a fault of the package. The root is removed when they return."""

    def ask(self, request: AskRequest, context: StepContext) -> Told:
        """Ask rpm for the sources of a spec, in a root without network."""
        ...

    def make_source(self, request: SourceRequest, context: StepContext) -> Made: ...

    def build(self, request: BuildRequest, context: StepContext) -> Made: ...
