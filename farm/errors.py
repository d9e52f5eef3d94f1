"""All failures of the farm itself, each with its code, its exit code and whether a retry can help.

The failure of a package is not one of them: it is an `Outcome`. `EXIT_CODES` has both, so that no two meanings share a
code.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from farm.model.artifact import Artifact
from farm.model.outcome import Outcome
from farm.model.remote import RemoteKind

#: As `remote`: a package, or a report of a step before, may be what failed.
GIVEN = "the input of the step"


class FarmError(Exception):
    """The farm could not do what was asked."""

    code: ClassVar[str] = "farm-error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    #: The status of an HTTP answer that reports it. An error of a step reaches no client, and has that of its base.
    http_status: ClassVar[int] = 500

    #: The stored log of the attempt that this error ended; set when the log is closed, not when the error is raised.
    artifacts: tuple[Artifact, ...] = ()
    #: The remote end that failed, if it was not this host: a name or address, or an input of the step.
    remote: str | None = None
    #: The kind of that far end.
    remote_kind: RemoteKind = RemoteKind.INPUT


# --- errors that the user can correct --------------------------------------------------------------------------


class BadRequest(FarmError):
    """The request cannot be carried out as it stands."""

    code = "bad-request"
    exit_code = 20
    http_status = 400


class UnknownTarget(BadRequest):
    """No target of that name is configured."""

    code = "unknown-target"
    exit_code = 21
    http_status = 404


class UnknownArch(BadRequest):
    """The target is not built for that architecture."""

    code = "unknown-arch"
    exit_code = 22
    http_status = 404


class NotFound(BadRequest):
    """There is no build, batch, step or artifact of that name."""

    code = "not-found"
    exit_code = 23
    http_status = 404


class WrongState(BadRequest):
    """The state of the build, file or host does not allow the operation."""

    code = "wrong-state"
    exit_code = 24
    http_status = 409


class BadSource(BadRequest):
    """The source named in the request cannot be used."""

    code = "bad-source"
    exit_code = 25


class BadTarget(FarmError):
    """A target's file is not valid."""

    code = "bad-target"
    exit_code = 26
    http_status = 409


class BadSettings(FarmError):
    """A `FARM_*` setting is unknown or has a value that cannot be used."""

    code = "bad-settings"
    exit_code = 27


class FarmNotRunning(FarmError):
    """The farm's database or broker does not answer."""

    code = "farm-not-running"
    exit_code = 28
    http_status = 503


class FarmAlreadyRunning(FarmError):
    """Another embedded farm uses this data directory."""

    code = "farm-already-running"
    exit_code = 29


class WaitTimedOut(FarmError):
    """The build did not finish within the time the caller wanted to wait; it goes on."""

    code = "wait-timed-out"
    exit_code = 30


class BrokerFull(FarmError):
    """The farm's broker is at its memory limit and accepts no more data."""

    code = "broker-full"
    exit_code = 31
    http_status = 503


class NotPermitted(FarmError):
    """The actor lacks the role that the operation takes."""

    code = "not-permitted"
    exit_code = 32
    http_status = 403


class NotLoggedIn(FarmError):
    """The farm's server knows no valid token of the client."""

    code = "not-logged-in"
    exit_code = 33
    http_status = 401


class TooLarge(BadRequest):
    """The request has more bytes than the farm's server takes."""

    code = "too-large"
    exit_code = 34
    http_status = 413


class TooManyRequests(FarmError):
    """The farm's server takes no more requests of this client for now."""

    code = "too-many-requests"
    exit_code = 35
    http_status = 429
    #: The seconds after which another try may do.
    retry_after_s: float = 1.0


class KeyReused(BadRequest):
    """The key of the request was used for another request before."""

    code = "key-reused"
    exit_code = 36
    http_status = 422


class InProgress(FarmError):
    """The same request still runs."""

    code = "in-progress"
    exit_code = 37
    http_status = 409


# --- farm trouble: raised by workers, retried by the scheduler -------------------------------------------------


class Trouble(FarmError):
    """Something outside the package went wrong while a step ran; another host or another time may do."""

    code = "trouble"
    exit_code = 40
    retryable = True


class NetworkTrouble(Trouble):
    """A server that a step needs did not answer, or broke off.

    Positional arguments: the message, and the server's host where it is known.
    """

    code = "network"
    exit_code = 41

    def __init__(self, message: str = "", remote: str | None = None) -> None:
        super().__init__(message, remote)
        self.remote = remote
        self.remote_kind = RemoteKind.SERVER

    def __str__(self) -> str:
        return str(self.args[0])


class SourceUnavailable(NetworkTrouble):
    """A server that the package names has no such host, refuses the connection, or has no certificate to trust.

    Its host may have a fault of its own, so the step is tried once more; the second time it is the package's failure.
    """

    code = "source-unavailable"
    exit_code = 57


class DiskFull(Trouble):
    """The worker's disk is full, and this step did not fill it."""

    code = "disk-full"
    exit_code = 42


class RootTrouble(Trouble):
    """A build root could not be made."""

    code = "root"
    exit_code = 43


class HostUnfit(Trouble):
    """This host lacks something that the step needs: a tool, a privilege, an emulator."""

    code = "host-unfit"
    exit_code = 44


class StoreTrouble(Trouble):
    """The artifact store did not take or give a file."""

    code = "artifact-store"
    exit_code = 45
    http_status = 503


class InputMissing(Trouble):
    """The artifact store does not have an input of the step.

    This host has another store, or a report named a file that never was. Only another host can tell, so it counts for
    this one once another has done the step.
    """

    code = "input-missing"
    exit_code = 56
    remote = "the artifact store"


class RepositoryTrouble(Trouble):
    """The repository back end did not take packages."""

    code = "repository"
    exit_code = 46
    http_status = 503


class WorkerLost(Trouble):
    """The worker that ran the attempt stopped renewing its lease.

    A package may end a worker on any host, so it counts for the host once another host has done the step.
    """

    code = "worker-lost"
    exit_code = 47
    remote = GIVEN


class UnknownVersion(Trouble):
    """A message has a version that this host does not speak; a newer or older host does."""

    code = "unknown-version"
    exit_code = 48


class HostHeld(Trouble):
    """The host is drained or quarantined, and must get no work."""

    code = "host-held"
    exit_code = 53


class Unforeseen(Trouble):
    """A step met an unexpected error: a bug of the farm, and never the package's fault."""

    code = "unforeseen"
    exit_code = 52


class LeaseLost(FarmError):
    """The attempt was cancelled or given to another worker; this one stops and reports nothing."""

    code = "lease-lost"
    exit_code = 49


def given(error: FarmError) -> FarmError:
    """The same error, of the step's input: it counts for no host before another one has done the step."""
    error.remote = error.remote or GIVEN
    return error


@contextmanager
def disk_errors(trouble: type[Trouble], doing: str) -> Iterator[None]:
    """An OSError inside becomes DiskFull, or `trouble`, with a message that begins with `doing`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{doing}: {error.strerror}; free some space on that file system") from error
        raise trouble(f"{doing}: {error}") from error


# --- codes -----------------------------------------------------------------------------------------------------

#: The exit codes of `farm build --wait`, by the build's outcome. 1 is an unexpected error, 2 is bad usage.
OUTCOME_EXIT_CODES: dict[Outcome, int] = {
    Outcome.SUCCEEDED: 0,
    Outcome.UNCHANGED: 0,
    Outcome.FAILED: 10,
    Outcome.UNRESOLVABLE: 11,
    Outcome.EXCLUDED: 12,
    Outcome.TIMED_OUT: 13,
    Outcome.STALLED: 14,
    Outcome.CANCELLED: 15,
    Outcome.ERRORED: 16,
    Outcome.OVER_LIMIT: 17,
}
