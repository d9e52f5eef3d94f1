"""Pages of hosts and queues, and the forms that drain a host."""

from contextlib import suppress

from litestar import Controller, Response, get, post
from litestar.response import Redirect

from farm.errors import BadRequest, FarmNotRunning
from farm.model.outcome import Status
from farm.server.pages import session
from farm.server.pages.forms import Fields, Form
from farm.server.pages.overview import hosts_of, queues_of, waits_of
from farm.server.pages.render import PageRequest, flower, page
from farm.server.parameters import Service
from farm.service.service import FarmService

_GOING = 100
_WAITING = 100


class HostPages(Controller):
    """The paths `/hosts` and `/queues`."""

    @get("/hosts", sync_to_thread=True)
    def hosts(self, request: PageRequest, service: Service) -> Response[bytes]:
        return page(
            request,
            "hosts",
            title="Hosts",
            at="hosts",
            hosts=hosts_of(service, request.user),
            holds=service.host_holds(),
            flower=flower(service),
            trouble=_trouble(service),
        )

    @post("/hosts/drain", sync_to_thread=True, status_code=303)
    def drain(self, request: PageRequest, service: Service, data: Fields) -> Redirect:
        form = Form(data)
        hold = service.drain_host(
            request.user,
            _host(form),
            hands_back=form.text("hands_back") == "1",
            reason=form.text("reason")[:1000],
        )
        session.say(request.session, f"{hold.shown}.")
        return Redirect("/hosts", status_code=303)

    @post("/hosts/undrain", sync_to_thread=True, status_code=303)
    def undrain(self, request: PageRequest, service: Service, data: Fields) -> Redirect:
        host = _host(Form(data))
        service.undrain_host(request.user, host)
        session.say(request.session, f"{host} gets work again.")
        return Redirect("/hosts", status_code=303)

    @get("/queues", sync_to_thread=True)
    def queues(self, request: PageRequest, service: Service) -> Response[bytes]:
        going = service.builds(request.user, status=Status.RUNNING, limit=_GOING)
        ready = service.builds(request.user, status=Status.READY, limit=_GOING)
        return page(
            request,
            "queues",
            title="Queues",
            at="queues",
            queues=queues_of(service),
            waits=waits_of((*going, *ready))[:_WAITING],
            trouble=_trouble(service),
        )


def _host(form: Form) -> str:
    if not (host := form.text("host")):
        raise BadRequest("the form names no host; use a form of the page of hosts")
    return host


def _trouble(service: FarmService) -> str:
    with suppress(FarmNotRunning):
        service.ping()
        return ""
    return "The broker does not answer, so it is not known which workers there are."
