"""Downloads files over http and https, within limits, checks them, and caches them by their checksum.

It returns only whole files with the right checksum. The server's answer decides the fault: 4xx is the asker's, all
others are the network's. Addresses come from hostile specs: the EgressPolicy makes every connection, also those of
redirects.
"""

import hashlib
import logging
import os
import secrets
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx
from httpcore._backends.sync import SyncStream

from farm.errors import LeaseLost, NetworkTrouble, SourceUnavailable, Trouble, disk_errors
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext, over_disk
from workers.core.text import shown
from workers.sources.checksum import Checksum
from workers.sources.egress import CONNECT_S, Closed, EgressPolicy, is_servers_fault
from workers.sources.wanted import Missing, Wanted, hide

# httpx logs whole URLs with their credentials at INFO.
logging.getLogger("httpx").setLevel(logging.WARNING)

_TIMEOUT = httpx.Timeout(30, connect=20)  # seconds for each read and write; the whole has the step's deadline
_REDIRECTS_MAX = 10
_CHUNK_BYTES = 2**18
_PROGRESS_EVERY_S = 5.0
_CERTIFICATES_KEPT_S = 600
_PART_KEPT_S = 24 * 3600
_TICK_S = 0.1
_AT_ONCE = 4
_MIB = 2**20
_HTTP_PORT = 80
#: Answers that may change after a while: too many requests, timeouts, and everything above.
_PASSING = (408, 425, 429)


def fetch(wanted: Sequence[Wanted], context: StepContext, egress: EgressPolicy) -> dict[str, Path | Missing]:
    """Download files, a few at a time. Returns by name the path of each, or the reason why it is missing.

    Raises NetworkTrouble (SourceUnavailable for a fault of a server that the package names), DiskFull, LeaseLost when
    the step is stopped, and Ended at its deadline or disk limit.
    """
    if not wanted:
        return {}
    downloads = _Downloads(context, egress)
    found: dict[str, Path | Missing] = {}
    pool = ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(wanted)), thread_name_prefix="download")
    try:
        futures = {pool.submit(downloads.one, item): item.name for item in wanted}
        pending: set[Future[Path | Missing]] = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            downloads.check()
            for future in done:
                found[futures[future]] = future.result()
    finally:
        downloads.close()
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def refusal(answer: httpx.Response, url: str, *, is_checked: bool) -> Missing | None:
    """The reason to refuse the answer; None to read it. Raises NetworkTrouble for an answer that may change."""
    code = answer.status_code
    if code in _PASSING or code >= 500:
        raise NetworkTrouble(f"{hide(url)} answered {code} {answer.reason_phrase}", answer.url.host)
    if code != 200:
        return Missing(reason=f"{hide(url)} answered {code} {answer.reason_phrase}")
    schemes = [response.url.scheme for response in (*answer.history, answer)]
    if not is_checked and schemes != sorted(schemes):
        # "http" sorts before "https": any step back in this order is to an unprotected connection.
        return Missing(reason=f"{hide(url)} leads from https to http, and no checksum is recorded")
    return None


@lru_cache(maxsize=1)
def _certificates(_period: int) -> ssl.SSLContext:
    """The certificates that the host trusts, read once in each period: that takes longer than most downloads."""
    return httpx.create_ssl_context()


class _Backend(httpcore.NetworkBackend):
    """Httpcore's connections, made by the EgressPolicy."""

    def __init__(self, egress: EgressPolicy) -> None:
        self._egress = egress

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        scheme = "http" if port == _HTTP_PORT else "https"
        try:
            connection = self._egress.connect(host, port, timeout_s=timeout or CONNECT_S, scheme=scheme)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} port {port} does not answer") from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return SyncStream(connection)


def _client(egress: EgressPolicy) -> httpx.Client:
    """Without the environment: its proxies are for the EgressPolicy, and root's netrc has logins that an asker must not
    use."""
    trust = _certificates(int(time.monotonic() // _CERTIFICATES_KEPT_S))
    transport = httpx.HTTPTransport(verify=trust, trust_env=False)
    # Httpx 0.28 has no argument for the network backend of its pool.
    transport._pool = httpcore.ConnectionPool(ssl_context=trust, network_backend=_Backend(egress))  # noqa: SLF001
    return httpx.Client(transport=transport, timeout=_TIMEOUT, follow_redirects=False, trust_env=False)


class _Downloads:
    """The cache of downloads, and the bytes that one call of `fetch` may still write."""

    def __init__(self, context: StepContext, egress: EgressPolicy) -> None:
        self.closed = threading.Event()
        self._context = context
        self._egress = egress
        self._folder = context.settings.cache / "downloads"
        self._left_bytes = context.limits.disk_bytes
        self._lock = threading.Lock()
        self._open: list[httpx.Response] = []

    @cached_property
    def _client(self) -> httpx.Client:
        """One client for all threads, made with the first download."""
        return _client(self._egress)

    def close(self) -> None:
        """Wake the threads that still wait for a server's next byte, so that they remove their files. A thread that
        waits for the first byte has no file yet."""
        self.closed.set()
        with self._lock:
            for answer in self._open:
                _hang_up(answer)
        if "_client" in vars(self):
            self._client.close()

    def check(self) -> None:
        if self._context.stop.is_set() or self.closed.is_set():
            raise LeaseLost("stopped while downloading")
        if time.monotonic() >= self._context.deadline:
            raise Ended(Outcome.TIMED_OUT, "downloading took longer than the step's time limit")

    def one(self, wanted: Wanted) -> Path | Missing:
        for url in ("", *wanted.urls):
            kept = self._kept(wanted.checksum, url)
            if kept and kept.is_file():
                self._context.log.note(f"{shown(wanted.name)}: in the cache, {wanted.checksum}")
                self._spend(kept.stat().st_size, wanted.name)
                with suppress(OSError):
                    os.utime(kept)  # `farm gc` removes the least recently used files
                return kept
        missing = Missing(reason=f"{shown(wanted.name)} has no URL")
        for url in wanted.urls:
            got = self._download(url, wanted)
            if isinstance(got, Path):
                return got
            self._context.log.note(got.reason)
            missing = got
        return missing

    def _kept(self, checksum: Checksum | None, url: str) -> Path | None:
        """The file's path in the cache, found by its checksum, and also by the password if the URL has one."""
        if checksum is None:
            return None
        if not _has_login(url):
            return self._folder / checksum.algorithm / checksum.hexdigest
        name = hashlib.sha256(f"{url} {checksum}".encode()).hexdigest()
        return self._folder / "with-password" / name

    def _download(self, url: str, wanted: Wanted) -> Path | Missing:
        self._context.log.note(f"downloading {hide(url)}")
        try:
            with disk_errors(Trouble, f"{hide(url)} could not be kept in {self._folder}"):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._forget_left_over()
                return self._into(self._folder / f"{secrets.token_hex(12)}.part", url, wanted)
        except Closed as error:
            return Missing(reason=f"{hide(url)} is not downloaded: {shown(str(error))}")
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            return Missing(reason=f"{hide(url)} cannot be downloaded: {_said(error)}")
        except (httpx.InvalidURL, ValueError):
            # The error's text may hold a part of the credentials.
            return Missing(reason=f"{hide(url)} cannot be downloaded: it, or a redirect, does not parse")
        except httpx.RemoteProtocolError as error:
            if "Invalid URL in location header" not in str(error):
                raise NetworkTrouble(f"{hide(url)}: {_said(error)}", _host(error, url)) from error
            return Missing(reason=f"{hide(url)} cannot be downloaded: its redirect does not parse")
        except httpx.HTTPError as error:
            is_packages = is_servers_fault(error) and url not in wanted.farm_urls
            kind = SourceUnavailable if is_packages else NetworkTrouble
            raise kind(f"{hide(url)}: {_said(error)}", _host(error, url)) from error

    def _forget_left_over(self) -> None:
        """Remove the partial files of killed workers. A live worker writes every few seconds, or gives up."""
        oldest = datetime.now(UTC).timestamp() - _PART_KEPT_S
        for left in self._folder.glob("*.part"):
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < oldest:
                    left.unlink()

    def _into(self, part: Path, url: str, wanted: Wanted) -> Path | Missing:
        checksum = wanted.checksum or Checksum(algorithm="sha256", hexdigest="")
        digest = hashlib.new(checksum.algorithm, usedforsecurity=False)
        # The encoding must be kept: a .tar.gz must arrive as such.
        headers = {"Accept-Encoding": "identity", "User-Agent": "farm"}
        with self._answer(self._client.build_request("GET", url, headers=headers)) as answer:
            refused = refusal(answer, url, is_checked=wanted.checksum is not None)
            if refused:
                return refused
            try:
                with self._lock:
                    self._open.append(answer)
                self.check()
                self._copy(answer, part, digest, wanted.name)
                found = Checksum(algorithm=checksum.algorithm, hexdigest=digest.hexdigest())
                return self._keep(part, found, url, wanted)
            finally:
                with self._lock:
                    self._open.remove(answer)
                part.unlink(missing_ok=True)

    @contextmanager
    def _answer(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """The answer after all redirects. Httpx would read the body of each into memory before it follows it."""
        history: list[httpx.Response] = []
        for _ in range(_REDIRECTS_MAX + 1):
            self.check()
            answer = self._client.send(request, stream=True)
            if answer.next_request is None:
                break
            answer.close()
            history.append(answer)
            request = answer.next_request
        else:
            raise httpx.TooManyRedirects(f"more than {_REDIRECTS_MAX} redirects", request=request)
        answer.history = history
        try:
            yield answer
        finally:
            answer.close()

    def _keep(self, part: Path, found: Checksum, url: str, wanted: Wanted) -> Path | Missing:
        if wanted.checksum and found != wanted.checksum:
            return Missing(reason=f"{hide(url)} has {found}, but {shown(wanted.name)} must have {wanted.checksum}")
        note = "checksum is right" if wanted.checksum else "no checksum recorded"
        self._context.log.note(f"{shown(wanted.name)}: {part.stat().st_size} bytes, {found}; {note}")
        # Without a checksum the file cannot be found again, and belongs to this attempt alone.
        final = self._kept(wanted.checksum, url) or self._context.workdir / f"download-{part.stem}"
        final.parent.mkdir(exist_ok=True)
        if wanted.checksum:
            # Files in the cache are never checked again, and a power cut can leave a name without its content.
            with part.open("rb") as file:
                os.fsync(file.fileno())
        shutil.move(part, final)
        return final

    def _copy(self, answer: httpx.Response, part: Path, digest: "hashlib._Hash", name: str) -> None:
        said = answer.headers.get("Content-Length", "")
        total_bytes = int(said) if said.isdecimal() and len(said) < 20 else None
        done_bytes, next_progress_at = 0, time.monotonic() + _PROGRESS_EVERY_S
        if total_bytes is not None and total_bytes > self._left_bytes:
            raise self._over_limit(name)
        with part.open("xb") as file:
            for chunk in answer.iter_raw(_CHUNK_BYTES):
                self.check()
                self._spend(len(chunk), name)
                file.write(chunk)
                digest.update(chunk)
                done_bytes += len(chunk)
                if time.monotonic() >= next_progress_at:
                    next_progress_at = time.monotonic() + _PROGRESS_EVERY_S
                    of = "" if total_bytes is None else f" of {total_bytes // _MIB} MiB"
                    self._context.log.note(f"{shown(name)}: {done_bytes // _MIB} MiB{of}")

    def _spend(self, size_bytes: int, name: str) -> None:
        with self._lock:
            self._left_bytes -= size_bytes
            if self._left_bytes < 0:
                raise self._over_limit(name)

    def _over_limit(self, name: str) -> Ended:
        limit = self._context.limits.disk_bytes
        return over_disk(f"{shown(name)} is larger than the step's disk limit of {limit} bytes allows")


def _hang_up(answer: httpx.Response) -> None:
    """Shut the connection down, which wakes its readers. To close the socket would not."""
    stream = answer.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream else None
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _has_login(url: str) -> bool:
    """Whether the part before the host's name may be a secret: a token can be in place of the user's name."""
    return "@" in url.partition("://")[2].partition("/")[0]


def _host(error: httpx.HTTPError, url: str) -> str | None:
    """The remote host, of the last redirect if there was one."""
    with suppress(RuntimeError):  # an error without a request
        return error.request.url.host
    return urlsplit(url).hostname


def _said(error: Exception) -> str:
    return shown(str(error) or type(error).__name__)
