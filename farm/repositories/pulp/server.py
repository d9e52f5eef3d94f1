"""The connection to a Pulp server: pulp-glue's own context, with what a service needs added.

Owns signing in, time limits, repeating and waiting; knows nothing of repositories. Added to pulp-glue 0.41:

- A session instead of a password in every request: Pulp hashes the password a million times each time it sees it
  (m: 320 ms a request with the password, 30 ms with a session).
- A limit on the time of each request, and repeats while Pulp is away or answers with a server's error. Every call
  that the farm makes converges when it is repeated.
- Waiting for tasks on a clock that cannot be set, polled soon at first and then less, through all of Pulp's task
  states, and given up when the step is stopped.
- The description of the API is asked for once a process and kept in memory, never in a file in the user's home,
  where it would outlive an upgrade of the server.
"""

import copy
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BufferedReader
from typing import Any, NoReturn

import requests
from pulp_glue.common.authentication import GlueAuthProvider
from pulp_glue.common.context import EntityDefinition, PulpContext, _patch_api_hook, preprocess_payload
from pulp_glue.common.exceptions import (
    OpenAPIError,
    PulpAuthenticationFailed,
    PulpException,
    PulpHTTPError,
    PulpNotAutorized,
    SchemaError,
    ValidationError,
)
from pulp_glue.common.openapi import OpenAPI
from requests.adapters import HTTPAdapter

from farm.config import Settings
from farm.errors import LeaseLost

API_ROOT = "/pulp/"
_CONNECT_S = 10.0
_SERVER_ERRORS = 4  # a server that answers 500 this often to the same request will go on doing so
_AWAY = (429, 502, 503, 504)
_PAUSE_S = (0.1, 5.0)  # first and longest pause before a request is repeated
_POLL_S = (0.1, 1.0)  # first and longest pause between two looks at a task; no task takes less than 0.2 s
_SESSION_FRESH_S = 5.0  # with a session this young, "not allowed" is about rights
_FULL_BELOW_BYTES = 16 * 2**20
_NOT_FOUND = 404
_SEE_URL = "set FARM_PULP_URL to Pulp's address, without a path"
_UPLOADS = ("content_rpm_packages_upload", "content_file_files_upload")


class NotThere(PulpException):
    """Pulp did not answer, or not in a way that made sense, for as long as it was asked."""


class TaskFailed(PulpException):
    """A task ended without success, or was cancelled."""


class TaskTooSlow(TaskFailed):
    """A task did not end in time, and was cancelled for that."""


class PulpServer:
    """One server for a process: cheap to make, safe to share between threads, connects when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._api: _Api | None = None
        self._uploads: ThreadPoolExecutor | None = None
        self._session: tuple[float, Mapping[str, str]] | None = None
        self._refused: tuple[float, PulpException] | None = None

    def open(self, stop: threading.Event | None = None) -> "Context":
        """A context for one thread and one operation. Raises NotThere, LeaseLost once `stop` is set."""
        context = Context(self, stop or threading.Event())
        context.use(self._loaded(context).fresh())
        return context

    def _loaded(self, context: "Context") -> "_Api":
        """One thread asks, and all that wait for it meanwhile get what it got: twenty do not wait twenty times."""
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

    def sign_in(self, api: "_Api", *, refused: PulpHTTPError | None = None) -> bool:
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
            f"user {settings.pulp_username!r}" if settings.pulp_username else "nobody (FARM_PULP_USERNAME is not set)"
        )

    def words(self, error: Exception) -> str:
        """What a person is told about an error of Pulp's or pulp-glue's."""
        where = f"Pulp at {self.settings.pulp_url}"
        if isinstance(error, PulpAuthenticationFailed):
            return f"{where} does not accept {self.who()}; set FARM_PULP_USERNAME and FARM_PULP_PASSWORD_FILE"
        if isinstance(error, PulpNotAutorized):
            return f"{where} does not let {self.who()} do this ({error}); `farm repo check` shows which rights lack"
        if isinstance(error, PulpHTTPError):
            return f"{where} refused it with {error.status_code}: {_body_words(str(error))}"
        if isinstance(error, TaskFailed) and "No space left" in str(error):
            return f"{where} has a full disk: {error}; free some space there"
        return f"{where}: {error}"

    def _load(self) -> "_Api":
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
        return _Api(settings.pulp_url.rstrip("/"), auth=auth, verify=verify, request_s=settings.pulp_request_s)


class Context(PulpContext):
    """pulp-glue's context of a server, for one thread. Its `call` repeats, and waits for tasks."""

    def __init__(self, server: PulpServer, stop: threading.Event) -> None:
        super().__init__(API_ROOT, {}, domain=server.settings.pulp_domain, chunk_size=server.settings.pulp_chunk_bytes)
        self.server = server
        self.stop = stop

    def use(self, api: "_Api") -> None:
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
                    raise TaskFailed(f"its task {name} failed: {_task_words(task)}")
                case "canceled" | "skipped" as state:
                    raise TaskFailed(f"its task {name} was {state} by someone else")
                case _ if time.monotonic() > deadline:
                    self._give_up(href, name, task["state"])
                case _:
                    self._pause(pause_s)
                    pause_s = _next_pause_s(pause_s, time.monotonic() - began)
                    task = self._look(href)

    def repeated(self, ask: "Any") -> Any:
        """What `ask()` returns, tried again while Pulp is away. Raises what it raises that is not that; NotThere."""
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
                reason = _connection_words(str(error)) or "its answer makes no sense"
            if failures >= _SERVER_ERRORS or time.monotonic() + pause_s > deadline:
                raise NotThere(f"it was asked for {self._asked_s(deadline):.0f} s: {_short(reason)}")
            self._pause(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S[1])

    def free_bytes(self) -> int | None:
        """What is left of Pulp's storage; None where Pulp cannot tell."""
        storage = self.call("status_read").get("storage")
        return None if not storage else int(storage["free"])

    def full_words(self) -> str:
        """Why a server's error may be about its disk; empty when there is room."""
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
            if not (isinstance(api, _Api) and self.repeated(lambda: self.server.sign_in(api, refused=refused))):
                raise
            return self.repeated(ask)

    def _look(self, task_href: str) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("tasks_read", {"task_href": task_href}, None, True)
        return found

    def _give_up(self, href: str, name: str, state: str) -> NoReturn:
        """Nothing of ours is to run when we say that it failed."""
        with suppress(PulpHTTPError):  # it may have ended in between
            self._ask("tasks_cancel", {"task_href": href}, {"state": "canceled"}, True)
        limit_s = self.server.settings.pulp_task_s
        raise TaskTooSlow(f"its task {name} was still {state} after {limit_s:g} s, and was cancelled")

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise LeaseLost("the step was stopped while it waited for Pulp")

    def _asked_s(self, deadline: float) -> float:
        return max(0.0, time.monotonic() - deadline + self.server.settings.pulp_retry_s)


class _Api(OpenAPI):
    """pulp-glue's HTTP client: with limits, and copied instead of made anew."""

    def __init__(self, base_url: str, *, auth: GlueAuthProvider | None, verify: bool | str, request_s: float) -> None:
        self._request_s = request_s
        #: The cookies that its requests are made with.
        self.session: Mapping[str, str] = {}
        super().__init__(
            base_url,
            f"{API_ROOT}api/v3/docs/api.json",
            auth_provider=auth,
            verify_ssl=verify,
            user_agent="farm",
            patch_api_hook=lambda api: _with_json_uploads(_patch_api_hook(api)),
            cid=None,
        )

    def load_api(self, refresh_cache: bool = False) -> None:  # noqa: ARG002 - there is no cache
        """Raises NotThere where asking again cannot help."""
        try:
            data = self._download_api()
        except requests.HTTPError as error:
            answer = error.response
            if answer is None:
                raise
            if answer.status_code == _NOT_FOUND:
                raise NotThere(f"what answers there is no Pulp (404 for {self._doc_path}); {_SEE_URL}") from error
            raise PulpHTTPError(answer.text, answer.status_code) from error
        except (OpenAPIError, OSError) as error:
            # A certificate of ours that cannot be used is an OSError and nothing more.
            if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
                raise NotThere(f"{error}; see FARM_PULP_CA, FARM_PULP_CERT and FARM_PULP_KEY") from error
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise NotThere(f"its certificate is not trusted; see FARM_PULP_CA ({_short(str(error))})") from error
            raise
        try:
            self._parse_api(data)
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # no JSON, or JSON that says something else
            raise NotThere(f"what answers there is no Pulp, or one that describes no API; {_SEE_URL}") from error

    def fresh(self) -> "_Api":
        """The same API on a connection of its own, for another thread; its requests have one correlation id."""
        other = copy.copy(self)
        other._headers = self._headers.copy()  # noqa: SLF001 - of its own class
        other._headers["Correlation-Id"] = uuid.uuid4().hex  # noqa: SLF001
        other._setup_session()  # noqa: SLF001
        return other

    def log_in(self, path: str, username: str, password: str) -> Mapping[str, str]:
        """A session's cookies. Raises PulpAuthenticationFailed, PulpHTTPError, OpenAPIError."""
        try:
            answer = self._session.post(
                self._base_url + path, auth=requests.auth.HTTPBasicAuth(username, password), cookies={}
            )
        except requests.RequestException as error:
            raise OpenAPIError(str(error)) from error
        if answer.status_code in (401, 403):
            raise PulpAuthenticationFailed("login")
        if not answer.ok:
            raise PulpHTTPError(answer.text, answer.status_code, "login")
        return {name: value or "" for name, value in requests.utils.dict_from_cookiejar(answer.cookies).items()}

    def use_session(self, cookies: Mapping[str, str]) -> None:
        self.session = cookies
        self._session.cookies.clear()
        self._session.cookies.update(dict(cookies))
        # Django wants both with a session: the token always, where the request comes from over HTTPS.
        self._session.headers["X-CSRFToken"] = cookies.get("csrftoken", "")
        self._session.headers["Referer"] = f"{self._base_url}/"

    def use_password(self, username: str, password: str) -> None:
        self._auth_provider = GlueAuthProvider(username=username, password=password)

    def _setup_session(self) -> None:
        super()._setup_session()
        adapter = _LimitedAdapter(self._request_s)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)


class _LimitedAdapter(HTTPAdapter):
    """Requests waits for ever unless it is told otherwise each time."""

    def __init__(self, request_s: float) -> None:
        super().__init__()
        self._request_s = request_s

    def send(self, request: requests.PreparedRequest, **given: Any) -> requests.Response:  # type: ignore[override]
        given["timeout"] = (min(_CONNECT_S, self._request_s), self._request_s)
        return super().send(request, **given)


def _with_json_uploads(api: dict[str, Any]) -> dict[str, Any]:
    """Uploads whose bytes are at Pulp already are sent as JSON. Pulp takes that, though it does not say so; as a form
    it does not understand labels unless a file comes with them (pulpcore 3.123)."""
    for methods in api.get("paths", {}).values():
        asked = methods.get("post", {})
        if asked.get("operationId") in _UPLOADS:
            content = asked["requestBody"]["content"]
            content.setdefault("application/json", content["multipart/form-data"])
    return api


def _connection_words(text: str) -> str:
    """What went wrong at the bottom of urllib3's layers of words, where that is known."""
    known = re.search(r"\[Errno -?\d+\] [^'\")]+|Read timed out|Remote end closed connection[^'\")]*", text)
    return known.group(0) if known else text


def _new_task(href: str, operation_id: str) -> dict[str, Any]:
    return {"pulp_href": href, "name": operation_id, "state": "waiting"}


def _next_pause_s(pause_s: float, elapsed_s: float) -> float:
    """Grows with the task's age, so that its end is noticed a tenth of its time late at most."""
    return min(pause_s * 1.3, max(2.5 * _POLL_S[0], elapsed_s / 10), _POLL_S[1])


def _task_words(task: Mapping[str, Any]) -> str:
    error = task.get("error") or {}
    return _short(str(error.get("description") or error.get("reason") or "Pulp does not say why"))


def _body_words(body: str) -> str:
    """An answer's text: of JSON the sentences, of a page nothing."""
    try:
        found = json.loads(body)
    except ValueError:
        return "its answer is a page and not words" if "<html" in body.lower() else _short(body)
    return _short("; ".join(_sentences(found, "")))


def _sentences(found: Any, key: str) -> list[str]:
    if isinstance(found, dict):
        return [text for name, value in found.items() for text in _sentences(value, str(name))]
    if isinstance(found, list):
        return [text for value in found for text in _sentences(value, key)]
    return [f"{key}: {found}" if key not in ("", "detail", "non_field_errors") else str(found)]


def _short(text: str) -> str:
    return ascii(re.sub(r"\s+", " ", text).strip()[:400])[1:-1]
