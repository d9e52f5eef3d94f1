"""Makes pages of templates: the environment, its filters, and what every page has."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Request, Response
from litestar.plugins.jinja import JinjaTemplateEngine
from markupsafe import Markup, escape

from farm.model import amounts
from farm.model.actor import Actor
from farm.model.outcome import Outcome, Status
from farm.model.text import clip, printable
from farm.model.token import Token
from farm.model.version import VERSION
from farm.server.pages import session
from farm.service.permissions import Place, Verb, may
from farm.service.service import FarmService

_FARM = Place()
PageRequest = Request[Actor, Token | None, Any]
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _static() -> dict[str, tuple[bytes, str]]:
    found = {}
    for file in (files("farm.server.pages") / "static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            found[file.name] = (file.read_bytes(), _TYPES[suffix])
    return found


#: The content and the type of each file of the stylesheet and scripts, by name.
STATIC = _static()
_DIGESTS = {name: hashlib.sha256(data).hexdigest()[:12] for name, (data, _) in STATIC.items()}
#: Part of the address of each file, so that a browser keeps them for long.
STATIC_VERSION = hashlib.sha256("".join(sorted(_DIGESTS.values())).encode()).hexdigest()[:12]


def _finalized(value: Any) -> Any:
    """Every value of a page: text of packages, hosts and people is made printable before it is escaped."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _url(*parts: object, **query: object) -> str:
    """A path of its parts, each of which may have any character, with a query of the values that are not empty."""
    path = "/" + "/".join(quote(str(part), safe="~@+") for part in parts)
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def _state(status: Status, outcome: Outcome | None) -> str:
    return str(outcome or status)


def _at(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("farm.server.pages", "templates"),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": amounts.ago,
        "duration": amounts.duration,
        "size": amounts.size,
        "clip": clip,
        "at": _at,
        "iso": lambda value: value.isoformat(timespec="seconds"),
        "tabs": lambda value: escape(printable(value, keep="\t")),
        "block": lambda value: escape(printable(value, keep="\n\t")),
        "words": lambda value: str(value).replace("_", " "),
    }
    made.globals |= {
        "url": _url,
        "state_of": _state,
        "Verb": Verb,
        "version": VERSION,
        "static": lambda name: f"/static/{STATIC_VERSION}/{name}",
        "since": amounts.since,
    }
    return made


ENGINE = JinjaTemplateEngine.from_environment(_environment())


def page(
    request: PageRequest,
    template: str,
    *,
    title: str,
    at: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response[bytes]:
    """The page; `at` is the entry of the navigation that it belongs to. It is made in the thread of the handler."""
    actor = request.scope.get("user")
    made = ENGINE.get_template(f"{template}.html").render(
        request=request,
        title=title,
        at=at,
        actor=actor,
        is_logged_in=request.scope.get("auth") is not None,
        may=lambda verb, owner=None, place=_FARM: actor is not None and may(actor, verb, owner=owner, place=place),
        said=session.said(request.scope),
        here=str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
        **values,
    )
    return Response(
        made.encode(errors="backslashreplace"),
        media_type="text/html",
        status_code=status,
        headers=dict(headers or {}),
    )


def flower(service: FarmService) -> str:
    """The address of Flower for links, without a slash at its end; empty if no setting names one."""
    return service.settings.flower_url.rstrip("/")
