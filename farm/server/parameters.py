"""Types of the parts of a request that several routes have, with their bounds."""

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.exceptions import InternalServerException
from litestar.params import FromPath, FromQuery, PathParameter, QueryParameter

from farm.errors import BadRequest
from farm.model.actor import Actor
from farm.model.token import Token
from farm.server.limits import RateLimits
from farm.service.service import FarmService

#: The largest number that every database takes.
_ID_MAX = 10**18 - 1
_OFFSET_MAX = 2**53


class CheckedRequest(Request[Any, Any, Any]):
    """A request whose body, if it cannot be JSON, is its sender's error and not the farm's."""

    async def body(self) -> bytes:
        """Raises BadRequest if its sender leaves before the end."""
        try:
            return await super().body()
        except InternalServerException as error:
            raise BadRequest("the connection ended before the body; send all of it, within half a minute") from error

    async def json(self) -> Any:
        """Raises BadRequest for a body that is nested too deeply or is not UTF-8."""
        try:
            return await super().json()
        except RecursionError as error:
            raise BadRequest("the body is nested too deeply; docs/server.md has its keys") from error
        except UnicodeDecodeError as error:
            raise BadRequest(f"the body is not UTF-8 at its byte {error.start}; send JSON") from error


def aware(at: datetime) -> datetime:
    """The time in UTC; one without a zone is in UTC. Raises BadRequest for one that has no other zone."""
    try:
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except OverflowError as error:
        raise BadRequest(f"{at} is too near the end of the calendar; give another time") from error


#: Its `auth` is the token; None for a client without one.
ActorRequest = Request[Actor, Token | None, Any]
Service = NamedDependency[FarmService]
Limits = NamedDependency[RateLimits]
Text = FromQuery[str]
MaybeText = FromQuery[str | None]
Name = FromPath[str]
Id = Annotated[int, PathParameter(ge=1, le=_ID_MAX)]
MaybeId = Annotated[int | None, QueryParameter(ge=1, le=_ID_MAX)]
Offset = Annotated[int, QueryParameter(ge=0, le=_OFFSET_MAX)]
Sha256 = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$")]
MaybePackage = Annotated[str | None, QueryParameter(pattern="^[^\\x00]{1,1000}$")]
TargetName = Annotated[str | None, QueryParameter(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
