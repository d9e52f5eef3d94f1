"""Pages of many builds: the list with its filters, search, a package's history, and the form for a new build."""

from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import QueryParameter
from litestar.response import Redirect

from farm.errors import BadRequest, BadSource, FarmError
from farm.model.history import BuildQuery
from farm.model.outcome import Outcome, Status
from farm.server.pages import session
from farm.server.pages.charts import history_chart
from farm.server.pages.forms import Fields, Form
from farm.server.pages.render import PageRequest, page
from farm.server.parameters import Limits, MaybeId, MaybeText, Service
from farm.service.history import outcomes_of
from farm.service.limits import parse_limits
from farm.service.permissions import Verb, check
from farm.service.request import RequestArguments, source_arguments
from farm.service.service import FarmService

_SHOWN = 50
_PLOTTED = 60
_NAME_MAX = 300
_DIGITS_MAX = 18
_State = Annotated[str | None, QueryParameter(name="state", max_length=_NAME_MAX)]
_Filter = Annotated[str | None, QueryParameter(max_length=_NAME_MAX)]


class ListPages(Controller):
    """`/builds`, `/search`, `/packages/NAME` and the form for a new build."""

    @get("/builds", sync_to_thread=True)
    def builds(
        self,
        request: PageRequest,
        service: Service,
        in_state: _State = None,
        package: _Filter = None,
        owner: _Filter = None,
        target: _Filter = None,
        batch: MaybeId = None,
        before: MaybeId = None,
    ) -> Response[bytes]:
        status, outcome = _state_named(in_state or "")
        wanted = BuildQuery(
            status=status,
            outcome=outcome,
            package=package or None,
            owner=owner or None,
            target=target or None,
            batch=batch,
        )
        builds, more = service.insight.find_builds(request.user, wanted, limit=_SHOWN, before=before)
        return page(
            request,
            "builds",
            title=f"Batch {batch}" if batch else "Builds",
            at="builds",
            builds=builds,
            more=more,
            before=before,
            given={"state": in_state, "package": package, "owner": owner, "target": target, "batch": batch},
            states=[*(one for one in Status if one is not Status.FINISHED), *Outcome],
            targets=_target_names(service),
        )

    @get("/search", sync_to_thread=True)
    def search(self, request: PageRequest, service: Service, q: MaybeText = None) -> Response[Any]:
        """A number is a build's; a name is a package's, or the beginning of it."""
        text = (q or "").strip()[:_NAME_MAX]
        number = text.removeprefix("#")
        if number.isascii() and number.isdecimal() and len(number) <= _DIGITS_MAX:
            return Redirect(f"/builds/{int(number)}", status_code=303)
        names = service.insight.package_names(request.user, text, limit=_SHOWN) if text else ()
        if len(names) == 1:
            return Redirect(_package_path(names[0]), status_code=303)
        return page(request, "search", title="Search", q=text, names=names)

    @get("/package", sync_to_thread=True)
    def package(
        self,
        request: PageRequest,
        service: Service,
        name: _Filter = None,
        target: _Filter = None,
        before: MaybeId = None,
    ) -> Response[bytes]:
        wanted = BuildQuery(package=name or "", target=target or None)
        builds, more = service.insight.find_builds(request.user, wanted, limit=_PLOTTED, before=before)
        runs = service.insight.runs(builds)
        return page(
            request,
            "package",
            title=name or "Package",
            at="builds",
            name=name or "",
            target=target,
            targets=_target_names(service),
            builds=builds,
            more=more,
            before=before,
            outcomes=outcomes_of(runs),
            charts=history_chart(builds, runs),
        )

    @get("/builds/new", sync_to_thread=True)
    def new(self, request: PageRequest, service: Service) -> Response[bytes]:
        check(request.user, Verb.ENQUEUE)
        return _new(request, service, Form({}))

    @post("/builds/new", sync_to_thread=True, status_code=200)
    def enqueue(self, request: PageRequest, service: Service, limits: Limits, data: Fields) -> Response[Any]:
        form = Form(data)
        limits.enqueue(request.user.name, 1)
        try:
            batch = service.enqueue(request.user, [service.request(request.user, **_asked(form))])
        except BadRequest as error:
            return _new(request, service, form, str(error), error.http_status)
        build = batch.builds[0]
        session.say(request.session, f"Build {build.id} is enqueued.")
        return Redirect(f"/builds/{build.id}", status_code=303)


def _package_path(name: str) -> str:
    from farm.server.pages.render import ENGINE

    address: Any = ENGINE.engine.globals["url"]
    return str(address("package", name=name))


def _state_named(text: str) -> tuple[Status | None, Outcome | None]:
    """Raises BadRequest for a word that is neither a status nor an outcome."""
    if not text:
        return None, None
    if text in list(Status):
        return Status(text), None
    if text in list(Outcome):
        return None, Outcome(text)
    raise BadRequest(f"state {text[:80]!r} is not one; there are {', '.join((*Status, *Outcome))}")


def _target_names(service: FarmService) -> list[str]:
    try:
        return sorted(service.targets())
    except FarmError:
        return []


def _asked(form: Form) -> RequestArguments:
    """Raises BadRequest, BadSource."""
    source = form.text("source")
    if not source:
        raise BadSource("the source is empty; give the URL of a git repository or of a source package")
    is_package = form.text("kind") == "package"
    where = {} if is_package else {"ref": form.maybe("ref"), "subdir": form.maybe("subdir")}
    asked = source_arguments(form.text("target"), source, is_package=is_package, **where)
    asked |= {
        "arches": form.many("arch"),
        "with_": form.words("with"),
        "without": form.words("without"),
        "defines": _macros(form.text("macros")),
        "timeout_s": form.number("timeout_s"),
        "limits": parse_limits(form.words("limits")) if form.text("limits") else None,
        "priority": form.number("priority", 0) or 0,
    }
    return asked


def _macros(text: str) -> list[tuple[str, str]]:
    """One macro a line: its name, and its value after a blank. Raises BadRequest."""
    found = []
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not value.strip():
            raise BadRequest(f"the macro {name[:80]!r} has no value; write its name, a blank and its value")
        if name:
            found.append((name, value.strip()))
    return found


def _new(
    request: PageRequest, service: FarmService, form: Form, problem: str = "", status: int = 200
) -> Response[bytes]:
    try:
        targets = service.targets()
    except FarmError as error:
        targets, problem = {}, problem or str(error)
    arches = sorted({arch for target in targets.values() for arch in target.arches})
    return page(
        request,
        "new_build",
        title="New build",
        at="builds",
        form=form,
        problem=problem,
        status=status,
        targets=sorted(targets),
        arches=arches,
    )
