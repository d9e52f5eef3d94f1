"""The page of a log. Without its script it is a page of lines; with it, lines come and go as a person scrolls.

The script asks `…/log/lines` for lines around, before or after an offset. A stream of events would only tell it when to
ask for more.
"""

from dataclasses import replace
from typing import Annotated, Any

from litestar import Controller, Response, get
from litestar.params import FromQuery, QueryParameter
from litestar.response import Redirect, Stream

from farm.errors import WrongState
from farm.model.actor import Actor
from farm.model.arch import Arch
from farm.model.build import Build
from farm.server.pages.ansi import Segment, segments
from farm.server.pages.render import ENGINE, PageRequest, page
from farm.server.parameters import Id, MaybeId, MaybeText, Offset, Service
from farm.service.log import LogPlace, find_log
from farm.service.log_window import (
    LogText,
    LogWindow,
    search,
    shown_hit,
    telling_offset,
    window_after,
    window_around,
    window_before,
)
from farm.service.request import step_kind
from farm.service.service import FarmService

_PART_BYTES = 2**16
#: A page without script has at most so many bytes of a log, and so many lines.
_PAGE_BYTES, _PAGE_LINES = 24_000, 400
_QUERY_MAX = 200
_HIT_CHARS = 240
_MaybeArch = FromQuery[Arch | None]
_MaybeOffset = Annotated[int | None, QueryParameter(ge=0, le=2**53)]
_Query = Annotated[str | None, QueryParameter(max_length=_QUERY_MAX)]


class LogPages(Controller):
    """The paths below `/builds/N/log`."""

    path = "/builds/{build_id:int}/log"

    @get("/", sync_to_thread=True)
    def log(
        self,
        request: PageRequest,
        service: Service,
        build_id: Id,
        step: MaybeText = None,
        arch: _MaybeArch = None,
        attempt: MaybeId = None,
        at: _MaybeOffset = None,
        before: _MaybeOffset = None,
        q: _Query = None,
        goto: MaybeText = None,
    ) -> Response[Any]:
        build = service.build(build_id, request.user)
        try:
            place = find_log(build, step=step_kind(step), arch=arch, attempt=attempt)
        except WrongState as error:
            return page(request, "log_none", title=f"Log of build {build.id}", at="builds", build=build, why=str(error))
        text = service.insight.log_text(place)
        reason = place.attempt.reason or place.step.reason or ""
        if goto == "failure":
            return _to_failure(build, place, text, reason)
        window = _cut(_first(text, at, before), at)
        hits = search(text, q, at or 0) if q else None
        return page(
            request,
            "log",
            title=f"{place.step.name} · {build.package} · build {build.id}",
            at="builds",
            build=build,
            place=place,
            reason=reason,
            telling=bool(reason) and telling_offset(text, reason) is not None,
            window=window,
            lines=[(offset, segments(line)) for offset, line in window.lines],
            marked=at,
            q=q,
            hits=[(offset, shown_hit(line, _HIT_CHARS)) for offset, line in hits.lines] if hits else None,
            more_hits=hits.next if hits else None,
            link=_link(build, place),
            is_over=text.is_over,
        )

    @get("/lines", sync_to_thread=True)
    def lines(
        self,
        request: PageRequest,
        service: Service,
        build_id: Id,
        step: MaybeText = None,
        arch: _MaybeArch = None,
        attempt: MaybeId = None,
        around: _MaybeOffset = None,
        before: _MaybeOffset = None,
        after: _MaybeOffset = None,
    ) -> dict[str, Any]:
        """Lines around, before or after the byte at an offset, as segments; without one, the last lines."""
        place = _place(service, request.user, build_id, step, arch, attempt)
        if after is not None:
            window = window_after(service.insight.log_text(place, base=after), after, _PART_BYTES)
        else:
            window = _chosen(service.insight.log_text(place), around, before)
        return _document(window, is_numbered=after is None or window.is_over)

    @get("/search", sync_to_thread=True)
    def search(
        self,
        request: PageRequest,
        service: Service,
        build_id: Id,
        q: Annotated[str, QueryParameter(min_length=1, max_length=_QUERY_MAX)],
        step: MaybeText = None,
        arch: _MaybeArch = None,
        attempt: MaybeId = None,
        offset: Offset = 0,
    ) -> dict[str, Any]:
        """The lines with a text, from an offset on."""
        text = service.insight.log_text(_place(service, request.user, build_id, step, arch, attempt))
        found = search(text, q, offset)
        return {"hits": [[at, shown_hit(line, _HIT_CHARS)] for at, line in found.lines], "next": found.next}

    @get("/failure", sync_to_thread=True)
    def failure(
        self,
        request: PageRequest,
        service: Service,
        build_id: Id,
        step: MaybeText = None,
        arch: _MaybeArch = None,
        attempt: MaybeId = None,
    ) -> dict[str, Any]:
        """The offset of the line that says why the attempt failed; null if it is not found."""
        place = _place(service, request.user, build_id, step, arch, attempt)
        reason = place.attempt.reason or place.step.reason or ""
        return {"at": telling_offset(service.insight.log_text(place), reason) if reason else None}

    @get("/raw", sync_to_thread=True)
    def raw(
        self,
        request: PageRequest,
        service: Service,
        build_id: Id,
        step: MaybeText = None,
        arch: _MaybeArch = None,
        attempt: MaybeId = None,
    ) -> Stream:
        """The whole log as it is now, as a download."""
        place = _place(service, request.user, build_id, step, arch, attempt)
        chosen = place.step
        parts = service.log(
            build_id, step=chosen.kind, arch=chosen.arch, attempt=place.attempt.number, viewer=request.user
        )
        headers = {"content-disposition": f'attachment; filename="{place.attempt.label}.log"'}
        return Stream(parts, media_type="application/octet-stream", headers=headers)


def _place(
    service: FarmService, viewer: Actor, build_id: int, step: str | None, arch: Arch | None, attempt: int | None
) -> LogPlace:
    return find_log(service.build(build_id, viewer), step=step_kind(step), arch=arch, attempt=attempt)


def _link(build: Build, place: LogPlace) -> Any:
    """Makes addresses of this attempt's log; a path below it, and values of the query."""

    def link(*below: str, **query: Any) -> str:
        address: Any = ENGINE.engine.globals["url"]
        return str(
            address(
                *("builds", build.id, "log", *below),
                step=place.step.kind,
                arch=place.step.arch,
                attempt=place.attempt.number,
                **query,
            )
        )

    return link


def _to_failure(build: Build, place: LogPlace, text: LogText, reason: str) -> Redirect:
    at = telling_offset(text, reason) if reason else None
    link = _link(build, place)
    return Redirect(link() if at is None else f"{link(at=at)}#b{at}", status_code=303)


def _first(text: LogText, at: int | None, before: int | None) -> LogWindow:
    """The end of the log, if no place is asked for."""
    if before is not None:
        return window_before(text, before, _PAGE_BYTES)
    if at is not None:
        return window_around(text, at, _PAGE_BYTES)
    return window_before(text, text.size, _PAGE_BYTES)


def _chosen(text: LogText, around: int | None, before: int | None) -> LogWindow:
    if around is not None:
        return window_around(text, around, _PART_BYTES)
    return window_before(text, text.size if before is None else before, _PART_BYTES)


def _cut(window: LogWindow, at: int | None) -> LogWindow:
    """Not more lines than a page has: the last of them, or those around a place. A line costs a page more than its
    bytes."""
    left = len(window.lines) - _PAGE_LINES
    if left <= 0:
        return window
    first = left
    if at is not None:
        place = sum(offset <= at for offset, _ in window.lines)
        first = min(left, max(0, place - _PAGE_LINES // 4))
    lines = window.lines[first : first + _PAGE_LINES]
    end = window.lines[first + _PAGE_LINES][0] if first < left else window.end
    return replace(window, lines=lines, start=lines[0][0], end=end, number=window.number + first)


def _document(window: LogWindow, *, is_numbered: bool) -> dict[str, Any]:
    lines: list[tuple[int, list[Segment]]] = [(offset, segments(line)) for offset, line in window.lines]
    return {
        "lines": lines,
        "start": window.start,
        "end": window.end,
        "size": window.size,
        "number": window.number if is_numbered else None,
        "over": window.is_over,
    }
