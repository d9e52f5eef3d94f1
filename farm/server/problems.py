"""Errors as `application/problem+json`, with the codes of the command line."""

import logging
import math
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException

from farm.errors import BadRequest, FarmError, NotFound, NotLoggedIn, TooLarge, TooManyRequests
from farm.model.text import clip, printable
from farm.service.bodies import PREFIX, Problem

PROBLEM_JSON = "application/problem+json"
_TEXT_MAX = 2000
_SHOWN_MAX = 200
_UNEXPECTED = "unexpected"
_log = logging.getLogger(__name__)


def problem_of(error: FarmError, *, field: str | None = None) -> Problem:
    """Its type's docstring is the title, its message the detail."""
    title = (type(error).__doc__ or "").partition("\n")[0].removesuffix(".")
    return Problem(
        type=f"urn:farm:error:{error.code}",
        title=title,
        status=error.http_status,
        detail=clip(printable(str(error)), _TEXT_MAX),
        code=error.code,
        field=field,
    )


def headers_of(problem: Problem, retry_after_s: float = 1.0) -> dict[str, str]:
    """The headers that a client needs beside the problem."""
    if problem.status == TooManyRequests.http_status:
        return {"retry-after": str(max(1, math.ceil(retry_after_s)))}
    return {"www-authenticate": "Bearer"} if problem.status == NotLoggedIn.http_status else {}


def body_of(problem: Problem) -> bytes:
    return msgspec.json.encode(problem)


def _answer(problem: Problem, retry_after_s: float = 1.0) -> Response[bytes]:
    return Response(
        body_of(problem),
        status_code=problem.status,
        media_type=PROBLEM_JSON,
        headers=headers_of(problem, retry_after_s),
    )


def farm_error(request: Request[Any, Any, Any], error: FarmError) -> Response[bytes]:
    if error.http_status >= 500:
        _log.warning("%s", error, extra={"action": "problem", "code": error.code})
    retry_after_s = error.retry_after_s if isinstance(error, TooManyRequests) else 1.0
    found = _answer(problem_of(error), retry_after_s)
    if isinstance(error, NotLoggedIn) and request.scope["path"].startswith("/repos/"):
        found.headers["www-authenticate"] = 'Basic realm="farm", charset="UTF-8"'
    return found


def http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """A request that no handler took: an unknown path, a body of another form."""
    path = clip(printable(request.scope["path"]), _SHOWN_MAX)
    see = f"see {PREFIX}/openapi.json"
    match error:
        case ValidationException():
            return _answer(_of_validation(error, see))
        case NotFoundException():
            return _answer(problem_of(NotFound(f"there is no {path}; {see}")))
        case MethodNotAllowedException():
            method = clip(printable(request.method), _SHOWN_MAX)
            problem = problem_of(BadRequest(f"{path} does not take {method}; {see}"))
            return _answer(msgspec.structs.replace(problem, status=error.status_code))
        case _:
            return _other(request, error, path, see)


def _other(request: Request[Any, Any, Any], error: HTTPException, path: str, see: str) -> Response[bytes]:
    if error.status_code == TooLarge.http_status:
        return _answer(problem_of(TooLarge(f"the request is too large: {error.detail}; send less at once")))
    if error.status_code >= 500:
        return unexpected(request, error)
    problem = problem_of(BadRequest(f"{path}: {error.detail}; {see}"))
    return _answer(msgspec.structs.replace(problem, status=error.status_code))


def _of_validation(error: ValidationException, see: str) -> Problem:
    found = error.extra if isinstance(error.extra, list) else []
    first: dict[str, Any] = next((one for one in found if isinstance(one, dict)), {})
    field = str(first.get("key") or first.get("source") or "") or None
    if field == "data":
        field = None
        first = first if first.get("message") != "'data'" else {"message": "it has no body"}
    what = first.get("message") or error.detail
    return problem_of(BadRequest(f"{field or 'the request'}: {what}; correct it, {see}"), field=field)


def unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of the farm. The answer says nothing of it; the log has the traceback."""
    path = printable(request.scope["path"])
    _log.error("%s %s: unexpected error", request.method, path, exc_info=error, extra={"action": "unexpected"})
    problem = Problem(
        type=f"urn:farm:error:{_UNEXPECTED}",
        title="The farm has a fault",
        status=500,
        detail="unexpected error; the server's log has it, please report it",
        code=_UNEXPECTED,
    )
    return _answer(problem)
