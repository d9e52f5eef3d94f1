"""RPM as a `WorkerFormat`: passes the calls of steps to the modules beside this file."""

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from farm.config import Settings
from farm.formats.base import Identity
from farm.formats.rpm import rpmfile
from farm.formats.rpm.format import identity_of
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from workers.core.collect import collect
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.formats.base import (
    BadPackage,
    BuildRequest,
    CheckedSource,
    Fitness,
    Gathered,
    GatherRequest,
    Made,
    Past,
    Reason,
    Reopened,
    SourceRequest,
    Taken,
)
from workers.formats.rpm import gather, git_words, reason
from workers.formats.rpm.engines import engine_for
from workers.formats.rpm.fitness import fitness
from workers.formats.rpm.native import native_roots
from workers.formats.rpm.package_cache import sweep_snapshots
from workers.formats.rpm.reopen import reopened
from workers.formats.rpm.results import checked_packages, checked_source
from workers.isolation.scratch import alive_folder
from workers.roots.base import RootMaker
from workers.sources.tree import Tree


class RpmWorkerFormat:
    """A `WorkerFormat`."""

    name = "rpm"
    source_word = "src.rpm"

    def gather(self, tree: Tree, request: GatherRequest, context: StepContext) -> Gathered:
        return gather.gather(tree, request, context, engine_for(request.target, context.settings))

    def check_source(self, path: Path, *, stop: threading.Event) -> CheckedSource:
        try:
            package = rpmfile.check_source(path, stop=stop)
        except rpmfile.BadRpm as error:
            raise BadPackage(str(error)) from error
        return CheckedSource(identity=identity_of(package.nevra), verified=package.verified)

    def check_identity(self, path: Path, identity: Identity) -> None:
        read = rpmfile.read_source_tags if identity.is_source else rpmfile.read_binary
        try:
            found = read(path).nevra
        except rpmfile.BadRpm as error:
            raise BadPackage(str(error)) from error
        # The reader gives "src" also for a nosrc package.
        if identity.is_source and identity_of(found).is_source:
            found = replace(found, arch=identity.arch)
        if str(found) != identity.text:
            raise BadPackage(f"states that it is {found}, and was reported as {identity}")

    def make_source(self, request: SourceRequest, context: StepContext) -> Made:
        made = engine_for(request.target, context.settings).make_source(request, context)
        return git_words.explained(made, context.log.path)

    def take_source(self, made: Made, context: StepContext) -> Taken:
        found = collect(made.results, ".src.rpm", limits=context.limits)
        taken = checked_source(found, context)
        said = made.facts.identity if made.facts else "nothing"
        if said.removesuffix(".nosrc").removesuffix(".src") != str(taken.identity).removesuffix(".src"):
            words = f"the spec says {shown(said)!r}, and the source package made of it is {taken.identity}"
            raise Ended(Outcome.FAILED, words)
        return taken

    def build(self, request: BuildRequest, context: StepContext) -> Made:
        return engine_for(request.target, context.settings).build(request, context)

    def take_packages(self, made: Made, *, source: str, arch: Arch, context: StepContext) -> tuple[Taken, ...]:
        found = collect(made.results, ".rpm", limits=context.limits)
        return checked_packages(found, source=source, arch=arch.rpm, context=context)

    def reopen(
        self, request: SourceRequest | BuildRequest, past: Past, context: StepContext
    ) -> AbstractContextManager[Reopened]:
        return reopened(request, past, context)

    def find_reason(self, log: Path) -> Reason | None:
        return reason.find_reason(log)

    def roots(self, settings: Settings) -> RootMaker:
        return native_roots(settings)

    def fitness(self, settings: Settings, tools: Mapping[str, str]) -> Fitness:
        return fitness(settings, tools)

    def sweep(self, settings: Settings) -> int:
        return sweep_snapshots(settings, alive_folder(settings))
