"""The connection to a Pulp server: pulp-glue's own context, with what a service needs added.

Owns signing in, time limits, repeating and waiting; knows nothing of repositories. Added to pulp-glue 0.41:

- Repeats while Pulp is away or answers with a server's error. Every call that the farm makes converges when it is
  repeated.
- Waiting for tasks on a clock that cannot be set, polled soon at first and then less, through all of Pulp's task
  states, and given up when the step is stopped.
- The description of the API is kept with the farm's caches, by the server's versions and for an hour, not without limit
  in the user's home, where it would outlive an upgrade of the server.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BufferedReader
from typing import Any, NoReturn, TypeVar

import requests
from pulp_glue.common.authentication import GlueAuthProvider
from pulp_glue.common.context import EntityDefinition, PulpContext, preprocess_payload
from pulp_glue.common.exceptions import (
    OpenAPIError,
    PulpAuthenticationFailed,
    PulpException,
    PulpHTTPError,
    PulpNotAutorized,
    SchemaError,
    ValidationError,
)

from farm.config import Settings
from farm.errors import LeaseLost
from farm.repositories.pulp.http import API_ROOT, Api
from farm.repositories.pulp.words import (
    NotThere,
    PulpFull,
    TaskFailed,
    TaskTooSlow,
    body_words,
    connection_words,
    short,
    task_words,
)

_log = logging.getLogger(__name__)

TRIES = 3  # tries of a task: a Pulp worker that dies takes its task with it
_SERVER_ERRORS = 4  # a server that answers 500 this often to the same request will go on doing so
_AWAY = (429, 502, 503, 504)
_PAUSE_S = (0.1, 5.0)  # first and longest pause before a request is repeated
_POLL_S = (0.1, 1.0)  # first and longest pause between two looks at a task; no task takes less than 0.2 s
_SESSION_FRESH_S = 5.0  # with a session this young, "not allowed" is about rights
_FULL_BELOW_BYTES = 16 * 2**20

T = TypeVar("T")


class PulpServer:
    """One server for a process: cheap to make, safe to share between threads, connects when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._api: Api | None = None
        self._uploads: ThreadPoolExecutor | None = None
        self._session: tuple[float, Mapping[str, str]] | None = None
        self._refused: tuple[float, PulpException] | None = None

    def open(self, stop: threading.Event | None = None) -> "Context":
        """A context for one thread and one operation. Raises NotThere, LeaseLost once `stop` is set."""
        context = Context(self, stop or threading.Event())
        context.use(self._loaded(context).fresh())
        return context

    def _loaded(self, context: "Context") -> Api:
        """One thread asks, and all waiting threads get its answer: twenty do not wait twenty times."""
        began = time.monotonic()
        with self._lock:
            if self._api is None:
                if self._refused is not None and self._refused[0] > began:
                    raise self._refused[1]
                try:
                    self._api = context.repeated(self._load)
                except PulpException as error:
                    self._refused = (time.monotonic(), error)
                    raise
            return self._api

    @property
    def uploads(self) -> ThreadPoolExecutor:
        """Shared by all publishers of the process, so that Pulp meets a bounded number of them."""
        with self._lock:
            if self._uploads is None:
                self._uploads = ThreadPoolExecutor(max(1, self.settings.pulp_uploads), thread_name_prefix="pulp-upload")
            return self._uploads

    def sign_in(self, api: Api, *, refused: PulpHTTPError | None = None) -> bool:
        """Give the API object credentials; others when `refused` is what those that it has led to. False where that
        cannot help. Raises PulpAuthenticationFailed, OpenAPIError."""
        settings = self.settings
        if not settings.pulp_username:
            return False
        if "login" not in api.operations:  # pulpcore before 3.86 has no sessions for API clients
            api.use_password(settings.pulp_username, settings.pulp_password)
            return False
        with self._lock:
            # Another thread may have signed in since: then its session is the new one.
            if refused is not None and self._session is not None and self._session[1] == api.session:
                is_fresh = time.monotonic() - self._session[0] < _SESSION_FRESH_S
                if is_fresh and not isinstance(refused, PulpAuthenticationFailed):
                    return False
                self._session = None
            if self._session is None:
                path = api.operations["login"][1].replace("{pulp_domain}", settings.pulp_domain)
                cookies = api.log_in(path, settings.pulp_username, settings.pulp_password)
                self._session = (time.monotonic(), cookies)
            cookies = self._session[1]
        api.use_session(cookies)
        return True

    def who(self) -> str:
        settings = self.settings
        if settings.pulp_cert is not None:
            return f"the certificate {settings.pulp_cert}"
        return (
            f"user {settings.pulp_username!r}" if settings.pulp_username else "no user (FARM_PULP_USERNAME is not set)"
        )

    def words(self, error: Exception) -> str:
        """The message about an error of Pulp's or pulp-glue's."""
        where = f"Pulp at {self.settings.pulp_url}"
        if isinstance(error, PulpAuthenticationFailed):
            return f"{where} does not accept {self.who()}; set FARM_PULP_USERNAME and FARM_PULP_PASSWORD_FILE"
        if isinstance(error, PulpNotAutorized):
            return f"{where} does not let {self.who()} do this ({error}); `farm repo check` shows which rights lack"
        if isinstance(error, PulpHTTPError):
            return f"{where} refused it with {error.status_code}: {body_words(str(error))}"
        if isinstance(error, PulpFull):
            return f"{where} has a full disk: {error}; free some space there"
        return f"{where}: {error}"

    def _load(self) -> Api:
        settings = self.settings
        files = {
            "FARM_PULP_CA": settings.pulp_ca,
            "FARM_PULP_CERT": settings.pulp_cert,
            "FARM_PULP_KEY": settings.pulp_key,
        }
        for name, path in files.items():
            if path is not None and not os.access(path, os.R_OK):
                raise NotThere(f"{name}={path} cannot be read; name a file that is there and that this user may read")
        auth = None
        if settings.pulp_cert is not None:
            key = str(settings.pulp_key) if settings.pulp_key is not None else None
            auth = GlueAuthProvider(cert=str(settings.pulp_cert), key=key)
        verify = str(settings.pulp_ca) if settings.pulp_ca is not None else True
        return Api(
            settings.pulp_url.rstrip("/"),
            auth=auth,
            verify=verify,
            request_s=settings.pulp_request_s,
            cache=settings.cache / "pulp",
        )


class Context(PulpContext):
    """pulp-glue's context of a server, for one thread. Its `call` repeats, and waits for tasks."""

    def __init__(self, server: PulpServer, stop: threading.Event) -> None:
        super().__init__(API_ROOT, {}, domain=server.settings.pulp_domain, chunk_size=server.settings.pulp_chunk_bytes)
        self.server = server
        self.stop = stop

    def use(self, api: Api) -> None:
        # The base class makes its own from a file in the user's home.
        self._api = api
        for requirement in self._needed_plugins:
            self.needs_plugin(requirement)
        self.repeated(lambda: self.server.sign_in(api))

    def call(
        self,
        operation_id: str,
        non_blocking: bool = False,
        parameters: dict[str, Any] | None = None,
        body: EntityDefinition | None = None,
        validate_body: bool = True,
    ) -> Any:
        """As pulp-glue's: the answer, or the task's result, or the task itself when it has none.

        Raises PulpHTTPError for what Pulp refuses, NotThere, TaskFailed, LeaseLost once `stop` is set.
        """
        parameters = dict(parameters or {})
        if self.domain_enabled and "pulp_domain" in self.api.param_spec(operation_id, "path", required=True):
            parameters["pulp_domain"] = self.pulp_domain
        answer = self._ask(operation_id, preprocess_payload(parameters), body, validate_body)
        if not (isinstance(answer, dict) and list(answer) == ["task"]):
            return answer
        # Changes and removals are mostly done by the time they are answered; nothing else is before a worker had it.
        is_soon = operation_id.endswith(("_update", "_delete"))
        task = self._look(answer["task"]) if is_soon else _new_task(answer["task"], operation_id)
        if non_blocking:
            return task
        finished = self.wait_for_task(task)
        return finished.get("result") or finished

    def wait_for_task(self, task: EntityDefinition, expect_cancel: bool = False) -> Any:  # noqa: ARG002
        """The task once it is completed. Raises TaskFailed, LeaseLost."""
        began = time.monotonic()
        deadline = began + self.server.settings.pulp_task_s
        href, name = task["pulp_href"], str(task.get("name", "task")).rpartition(".")[2]
        pause_s = _POLL_S[0]
        while True:
            match task["state"]:
                case "completed":
                    return task
                case "failed":
                    self._fail(f"its task {name} failed: {task_words(task)}")
                case "canceled" | "skipped" as state:
                    raise TaskFailed(f"its task {name} was {state} by someone else")
                case _ if time.monotonic() > deadline:
                    self._give_up(href, name, task["state"])
                case _:
                    self._pause(pause_s)
                    pause_s = _next_pause_s(pause_s, time.monotonic() - began)
                    task = self._look(href)

    def repeated(self, ask: Callable[[], T]) -> T:
        """The result of `ask()`, retried while Pulp is away. Raises all other exceptions of `ask()`; NotThere."""
        deadline = time.monotonic() + self.server.settings.pulp_retry_s
        pause_s, failures = _PAUSE_S[0], 0
        while True:
            if self.stop.is_set():
                raise LeaseLost("the step was stopped while it talked to Pulp")
            try:
                return ask()
            except PulpHTTPError as error:
                failures += error.status_code == 500
                if error.status_code not in (500, *_AWAY):
                    raise
                reason = f"it answers {error.status_code}"
            except (ValidationError, SchemaError):
                raise
            except (OpenAPIError, requests.RequestException, AssertionError, ValueError) as error:
                # pulp-glue asserts the type of an answer, and raises ValueError for one that is no JSON.
                reason = connection_words(str(error)) or "its answer makes no sense"
            if failures >= _SERVER_ERRORS or time.monotonic() + pause_s > deadline:
                raise NotThere(f"it was asked for {self._asked_s(deadline):.0f} s: {short(reason)}")
            self._pause(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S[1])

    def tried(self, ask: Callable[[], T], look: Callable[[], T | None] = lambda: None) -> T:
        """The result of `ask()`; if its task failed for Pulp's reasons, it is called again, unless `look()` finds the
        work done. Raises TaskFailed.
        """
        for left in reversed(range(TRIES)):
            try:
                return ask()
            except TaskFailed as error:
                if left == 0 or isinstance(error, (TaskTooSlow, PulpFull)):
                    raise
                _log.warning("%s; trying again", error, extra={"action": "retry"})
                found = look()
                if found is not None:
                    return found
        raise AssertionError("unreachable")

    def free_bytes(self) -> int | None:
        """The free space of Pulp's storage; None if Pulp cannot tell."""
        storage = self.call("status_read").get("storage")
        return None if not storage else int(storage["free"])

    def full_words(self) -> str:
        """A hint that a server's error may be about its disk; empty if there is space."""
        try:
            free = self.free_bytes()
        except PulpException:
            return ""
        if free is None or free > _FULL_BELOW_BYTES:
            return ""
        return f"; its storage is full ({free} bytes are left): free some space there"

    def _ask(
        self, operation_id: str, parameters: dict[str, Any], body: EntityDefinition | None, validate_body: bool
    ) -> Any:
        def ask() -> Any:
            for value in (body or {}).values():
                if isinstance(value, BufferedReader):
                    value.seek(0)
            return self.api.call(
                operation_id,
                parameters=dict(parameters),
                body=None if body is None else preprocess_payload(body),
                validate_body=validate_body,
            )

        try:
            return self.repeated(ask)
        except (PulpAuthenticationFailed, PulpNotAutorized) as error:
            api, refused = self.api, error
            if not (isinstance(api, Api) and self.repeated(lambda: self.server.sign_in(api, refused=refused))):
                raise
            return self.repeated(ask)

    def _look(self, task_href: str) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("tasks_read", {"task_href": task_href}, None, True)
        return found

    def _fail(self, words: str) -> NoReturn:
        """Not every part of Pulp says that the disk is full: zlib's words are "file operation error"."""
        if "No space left" in words or self.full_words():
            raise PulpFull(words)
        raise TaskFailed(words)

    def _give_up(self, href: str, name: str, state: str) -> NoReturn:
        """No task of ours may run when we report a failure."""
        with suppress(PulpHTTPError):  # it may have ended in between
            self._ask("tasks_cancel", {"task_href": href}, {"state": "canceled"}, True)
        limit_s = self.server.settings.pulp_task_s
        raise TaskTooSlow(f"its task {name} was still {state} after {limit_s:g} s, and was cancelled")

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise LeaseLost("the step was stopped while it waited for Pulp")

    def _asked_s(self, deadline: float) -> float:
        return max(0.0, time.monotonic() - deadline + self.server.settings.pulp_retry_s)


def _new_task(href: str, operation_id: str) -> dict[str, Any]:
    return {"pulp_href": href, "name": operation_id, "state": "waiting"}


def _next_pause_s(pause_s: float, elapsed_s: float) -> float:
    """Grows with the task's age, so that its end is noticed a tenth of its time late at most."""
    return min(pause_s * 1.3, max(2.5 * _POLL_S[0], elapsed_s / 10), _POLL_S[1])
