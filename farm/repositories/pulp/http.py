"""HTTP to Pulp: pulp-glue's client, with limits on time, a session, and copies for other threads.

Owns the connection, but not when one is made or which requests are sent. A session saves time: Pulp hashes the password
a million times for each request with it (m: 320 ms a request with the password, 30 ms with a session).
"""

import copy
import hashlib
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from pulp_glue.common.authentication import GlueAuthProvider
from pulp_glue.common.context import _patch_api_hook
from pulp_glue.common.exceptions import OpenAPIError, PulpAuthenticationFailed, PulpHTTPError
from pulp_glue.common.openapi import OpenAPI
from requests.adapters import HTTPAdapter

from farm.repositories.pulp.words import NotThere, short

API_ROOT = "/pulp/"
_CONNECT_S = 10.0
_NOT_FOUND = 404
_KEPT_S = 3600.0  # an administrator may change what it says without another version
_SEE_URL = "set FARM_PULP_URL to Pulp's address, without a path"
_UPLOADS = ("content_rpm_packages_upload", "content_file_files_upload")


class Api(OpenAPI):
    """pulp-glue's HTTP client, with time limits, and copied instead of made again."""

    def __init__(
        self, base_url: str, *, auth: GlueAuthProvider | None, verify: bool | str, request_s: float, cache: Path
    ) -> None:
        """`cache` is a folder for the description of the API, made when it is needed."""
        self._request_s = request_s
        self._cache = cache
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

    def load_api(self, refresh_cache: bool = False) -> None:  # noqa: ARG002 - the cache is ours
        """Raises NotThere where asking again cannot help."""
        try:
            place = self._place()
            kept = _kept(place) if place is not None else None
            data = kept or bytes(self._download_api())
        except requests.HTTPError as error:
            answer = error.response
            if answer is None:
                raise
            if answer.status_code == _NOT_FOUND:
                raise NotThere(f"the server there is no Pulp (404 for {self._doc_path}); {_SEE_URL}") from error
            raise PulpHTTPError(answer.text, answer.status_code) from error
        except (OpenAPIError, OSError) as error:
            # A certificate of ours that cannot be used is an OSError and nothing more.
            if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
                raise NotThere(f"{error}; see FARM_PULP_CA, FARM_PULP_CERT and FARM_PULP_KEY") from error
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise NotThere(f"its certificate is not trusted; see FARM_PULP_CA ({short(str(error))})") from error
            raise
        try:
            self._parse_api(data)
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # no JSON, or JSON that says something else
            raise NotThere(f"the server there is no Pulp, or one that describes no API; {_SEE_URL}") from error
        if place is not None and kept is None:
            _keep(place, data)

    def _place(self) -> Path | None:
        """The path of the description of a Pulp of these versions; None for a server that does not report them."""
        try:
            answer = self._session.get(f"{self._base_url}{API_ROOT}api/v3/status/")
        except requests.RequestException as error:
            raise OpenAPIError(str(error)) from error
        try:
            status = answer.json()
            versions = sorted(f"{one['component']} {one['version']}" for one in status["versions"])
            told = "\n".join([self._base_url, str(status.get("domain_enabled")), *versions])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return self._cache / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"

    def fresh(self) -> "Api":
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
        adapter = _LimitedAdapter(self._request_s, self._verify_ssl)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)


class _LimitedAdapter(HTTPAdapter):
    """Requests waits without limit unless each call sets a timeout."""

    def __init__(self, request_s: float, verify: bool | str | None) -> None:
        super().__init__()
        self._request_s = request_s
        self._verify = verify

    def send(self, request: requests.PreparedRequest, **given: Any) -> requests.Response:  # type: ignore[override]
        if isinstance(self._verify, str):
            # requests prefers REQUESTS_CA_BUNDLE of the environment to what its session was told.
            given["verify"] = self._verify
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


def _kept(place: Path) -> bytes | None:
    """The description of Pulp's API. It is cached, since Pulp needs more than a second of CPU time to make it."""
    with suppress(OSError):
        if 0 <= datetime.now(UTC).timestamp() - place.stat().st_mtime < _KEPT_S:
            return place.read_bytes()
    return None


def _keep(place: Path, data: bytes) -> None:
    with suppress(OSError):  # where it cannot be kept it is asked for again
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
        unfinished.write_bytes(data)
        unfinished.rename(place)
