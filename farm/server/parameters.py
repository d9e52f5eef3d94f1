"""Types of the parts of a request that several routes have, with their bounds."""

from typing import Annotated, Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, PathParameter, QueryParameter

from farm.model.actor import Actor
from farm.service.service import FarmService

#: The largest number that every database takes.
_ID_MAX = 10**18 - 1
_OFFSET_MAX = 2**53

ActorRequest = Request[Actor, None, Any]
Service = NamedDependency[FarmService]
Text = FromQuery[str]
MaybeText = FromQuery[str | None]
Name = FromPath[str]
Id = Annotated[int, PathParameter(ge=1, le=_ID_MAX)]
MaybeId = Annotated[int | None, QueryParameter(ge=1, le=_ID_MAX)]
Offset = Annotated[int, QueryParameter(ge=0, le=_OFFSET_MAX)]
Sha256 = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$")]
TargetName = Annotated[str | None, QueryParameter(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
