"""`FarmApi`: the calls that every client of a farm has, on the farm's machine or elsewhere.

A client implements the abstract methods; the others are made of those. tests/contract/test_farm_api.py holds every
client to what the docstrings promise.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, Unpack

from farm.client.handle import BatchHandle, BuildCalls, BuildHandle, BuildRef
from farm.client.projects import ProjectCalls
from farm.model.actor import Actor, Role
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.audit import AuditRecord
from farm.model.build import Build, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
from farm.model.token import EXPIRES_DEFAULT, NewToken, Token
from farm.model.worker import HostHold, WorkerFacts
from farm.repositories import RepositoryCheck, RepositoryName, RepositoryVersion
from farm.service.repository import Repository, Rollback
from farm.service.request import RequestArguments
from farm.service.watch import Event

if TYPE_CHECKING:
    from farm.gc.artifacts import Collected


class FarmApi(BuildCalls, ProjectCalls, Protocol):
    """A connection to a farm for one actor. Use it as a context manager. Safe to use from several threads.

    Every call raises FarmNotRunning when the farm does not answer, and NotPermitted, before it changes anything, when
    the actor lacks the role for it.
    """

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def whoami(self) -> Actor:
        """The actor of every call."""

    # --- enqueue ------------------------------------------------------------------------------------------------

    @abstractmethod
    def request(self, **asked: Unpack[RequestArguments]) -> BuildRequest:
        """A checked request, for `enqueue_many`. `RequestArguments` describes the arguments.

        A local source package is copied into the artifact store after every other check.
        Raises UnknownTarget, BadTarget, UnknownArch, BadSource, BadRequest; StoreTrouble when it cannot be copied.
        """

    @abstractmethod
    def enqueue_many(self, requests: Iterable[BuildRequest], *, owner: str | None = None) -> BatchHandle:
        """Enqueue all or none of these builds, as one batch. Raises as `enqueue` does; BadRequest for no request at
        all.

        `requests` is read after the check that the farm takes more. An owner other than the actor takes an admin.
        """

    def enqueue(self, *, owner: str | None = None, **asked: Unpack[RequestArguments]) -> BuildHandle:
        """Enqueue one build; `RequestArguments` describes the arguments. Returns at once.

        Raises what `request` does, before it writes anything; FarmNotRunning and BrokerFull.
        """
        return self.enqueue_many((self.request(**one) for one in (asked,)), owner=owner).builds[0]

    # --- builds -------------------------------------------------------------------------------------------------

    def handle(self, build: BuildRef) -> BuildHandle:
        """A handle to wait for a build that was enqueued earlier. Raises NotFound."""
        return BuildHandle(self, self.build(build))

    @abstractmethod
    def builds(
        self,
        *,
        status: Status | None = None,
        outcome: Outcome | None = None,
        target: str | None = None,
        project: str | None = None,
        package: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[Build, ...]:
        """Builds, newest first, with their steps but without attempts; only those older than the build `before`.

        Raises NotFound for an unknown project.
        """

    def wait(
        self, build: BuildRef, *, timeout_s: float | None = None, on_event: Callable[[Event], object] | None = None
    ) -> Build:
        """Block until the build is finished; call `on_event` with each event meanwhile.

        Raises WaitTimedOut after `timeout_s`; the build goes on.
        """
        return self.handle(build).wait(timeout_s=timeout_s, on_event=on_event)

    def read(self, artifact: Artifact) -> bytes:
        """An artifact's content, whole: for records, not for packages. Raises NotFound."""
        with self.open_artifact(artifact) as file:
            return file.read()

    # --- repositories and targets -------------------------------------------------------------------------------

    @abstractmethod
    def repository(self, target: str, arch: str | Arch | None = None, *, project: str = DEFAULT_PROJECT) -> Repository:
        """The repository of a project's packages for the target; `arch` None is this machine's, if the target has it.

        Raises UnknownTarget, UnknownArch, and NotFound for an unknown project.
        """

    @abstractmethod
    def repository_name(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os", project: str = DEFAULT_PROJECT
    ) -> RepositoryName:
        """The name of one of a project's repositories for the target; `kind` is os, debug or source.

        Raises UnknownTarget, UnknownArch, BadRequest, and NotFound for an unknown project.
        """

    @abstractmethod
    def repository_versions(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os", project: str = DEFAULT_PROJECT
    ) -> tuple[RepositoryVersion, ...]:
        """The versions of a repository that are kept, newest first; `kind` is os, debug or source.

        Raises as `repository_name`, and RepositoryTrouble when the back end does not answer.
        """

    @abstractmethod
    def rollback(
        self,
        target: str,
        *,
        to: int,
        arch: str | Arch | None = None,
        kind: str = "os",
        project: str = DEFAULT_PROJECT,
    ) -> Rollback:
        """Make a new version with the content of version `to`, which clients and later builds get.

        To undo it, roll back to `before.number` of the answer. Raises NotFound for a version that is not kept, and for
        an unknown project; UnknownTarget, UnknownArch, BadRequest, RepositoryTrouble.
        """

    @abstractmethod
    def check_repositories(self) -> tuple[RepositoryCheck, ...]:
        """Check the repository back end from the farm's host; each check says in words what it found."""

    @abstractmethod
    def target(self, name: str) -> Target:
        """Raises UnknownTarget, BadTarget."""

    @abstractmethod
    def targets(self) -> dict[str, Target]:
        """By name. Raises BadTarget for the first file that is not valid."""

    # --- hosts and the farm -------------------------------------------------------------------------------------

    @abstractmethod
    def ping(self) -> None:
        """Raises FarmNotRunning when the broker does not answer."""

    @abstractmethod
    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers that reported within the last 30 s, by name."""

    @abstractmethod
    def host_holds(self) -> dict[str, HostHold]:
        """The holds on the hosts that get no work now, by HostHold.key."""

    @abstractmethod
    def serving(self) -> dict[str, tuple[int, str]]:
        """By queue: how many slots get work now, and why the others get none."""

    @abstractmethod
    def running_on(self) -> dict[str, tuple[str, ...]]:
        """The labels of running attempts, keyed by worker, and again keyed by host."""

    @abstractmethod
    def queue_counts(self) -> dict[str, tuple[int, int]]:
        """The number of ready steps, and of steps held by workers, for each queue that has any."""

    @abstractmethod
    def drain_host(self, host: str, *, hands_back: bool = False, reason: str = "", force: bool = False) -> HostHold:
        """Give a host no new work from now on, until `undrain_host`; restarts do not change that.

        The host finishes its running steps; with `hands_back` they are stopped, and run on another host. Raises
        NotFound for an unknown host, unless `force`.
        """

    @abstractmethod
    def undrain_host(self, host: str) -> HostHold:
        """Give a drained or quarantined host work again. Returns its hold. Raises WrongState without one."""

    @abstractmethod
    def collect_artifacts(
        self, *, since: datetime, dry_run: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> "Collected":
        """Remove artifacts that neither an unfinished build, nor one that ended after `since`, nor a kept version of a
        repository names. `say` is called with the progress. Safe while builds run, and safe to repeat.

        Raises StoreTrouble and RepositoryTrouble.
        """

    # --- tokens -------------------------------------------------------------------------------------------------

    @abstractmethod
    def new_token(
        self,
        *,
        name: str,
        roles: Collection[Role],
        bearer: str | None = None,
        expires: timedelta = EXPIRES_DEFAULT,
        project: str | None = None,
    ) -> NewToken:
        """A token for the farm's server, with whose secret `bearer`, or the actor if None, acts in these roles; with a
        `project` in that project alone.

        The secret cannot be read again. Raises BadRequest, and NotFound for an unknown project.
        """

    @abstractmethod
    def tokens(self) -> tuple[Token, ...]:
        """All tokens by number, with the expired and the revoked ones."""

    @abstractmethod
    def revoke_token(self, token_id: int) -> Token:
        """From now on the token gives no right. Raises NotFound, and WrongState for a token that is revoked already."""

    # --- the audit log ------------------------------------------------------------------------------------------

    @abstractmethod
    def audit(
        self,
        *,
        actor: str | None = None,
        verb: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[AuditRecord, ...]:
        """Records of who changed what, newest first; only those older than the record `before`. Raises BadRequest for
        an unknown verb.
        """
