"""Helpers of the fetch step's tests: a context with a real store, git repositories, an HTTP server of their own."""

import base64
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.formats.rpm.settings import Lookaside, settings_of
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.target import Limits
from farm.model.work import Work
from farm.steps.fetch import FetchInput, FetchResult
from farm.targets.load import find_target
from tests.artifacts import path_of
from tests.distribution import demo_distribution
from tests.packages import commit_all, git
from workers.core.context import Ended, StepContext
from workers.core.log import StepLog
from workers.steps import fetch


@dataclass
class Desk:
    """A worker's surroundings in a temporary folder; each `fetch` is an attempt of its own on the same caches."""

    folder: Path
    limits: Limits = field(default_factory=Limits)
    lookaside: Lookaside | None = None
    options: BuildOptions = field(default_factory=BuildOptions)
    stop: threading.Event = field(default_factory=threading.Event)
    wall_s: float = 60
    attempts: int = 0
    arches: tuple[Arch, ...] = (Arch.X86_64,)
    allow: str = "127.0.0.0/8"  # the servers of tests listen there
    reader_uid: int | None = field(default_factory=os.geteuid)

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        for name in ("templates", "sandbox"):
            link = self.folder / "data" / name
            if not link.is_symlink():
                link.symlink_to(shared_roots() / name)

    @property
    def settings(self) -> Settings:
        return Settings(data=self.folder / "data", allow_networks=self.allow)

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(self.settings.artifacts)

    def context(self) -> StepContext:
        self.attempts += 1
        workdir = self.folder / f"work-{self.attempts}"
        workdir.mkdir(parents=True)
        return StepContext(
            attempt=f"1.fetch.{self.attempts}",
            workdir=workdir,
            log=StepLog(self.folder / f"log-{self.attempts}", limit_bytes=2**20),
            store=self.store,
            settings=self.settings,
            limits=self.limits,
            stop=self.stop,
            deadline=time.monotonic() + self.wall_s,
        )

    def fetch(self, source: Source) -> FetchResult:
        """Run the step. Its log is closed and readable as `log` afterwards, whatever came of it."""
        demo = find_target(Settings(data=shared_roots()), "demo")
        target = replace(demo, table=replace(settings_of(demo), lookaside=self.lookaside).table)
        work = Work(
            attempt="1.fetch.1",
            kind="fetch",
            build_id=1,
            package=source.guessed_name,
            target=target,
            options=self.options,
            limits=self.limits,
            input=FetchInput(source=source, arch=Arch.X86_64, arches=self.arches),
        )
        context = self.context()
        with context.log:
            result = fetch.run(work, context)
        assert result.output is not None
        return result.output

    def git(self, url: Path | str, **where: str) -> FetchResult:
        return self.fetch(self._source(url, **where))

    def _source(self, url: Path | str, **where: str) -> Source:
        return Source(kind=SourceKind.GIT, url=str(url), reader_uid=self.reader_uid, **where)

    def refusal(self, source: Source) -> str:
        """The reason why a source cannot be fetched, which is the asker's fault."""
        with pytest.raises(Ended) as ended:
            self.fetch(source)
        reason = ended.value.reason
        assert ended.value.outcome is (Outcome.OVER_LIMIT if "--limit disk=" in reason else Outcome.FAILED)
        assert "\n" not in reason
        return reason

    def git_refusal(self, url: Path | str, **where: str) -> str:
        return self.refusal(self._source(url, **where))

    @property
    def log(self) -> str:
        return (self.folder / f"log-{self.attempts}").read_text(errors="backslashreplace")

    def content(self, result: FetchResult) -> dict[str, bytes]:
        """The files of the stored tar, by name."""
        with tarfile.open(path_of(self.store, result.archive.sha256)) as tar:
            found = {member.name: tar.extractfile(member) for member in tar}
            return {name: stream.read() for name, stream in found.items() if stream}


@cache
def shared_roots() -> Path:
    """A data folder with the demo's templates and the sandbox's helper, in the user's cache: a template takes longer to
    make than all fetches of a test."""
    data = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farm-tests/roots"
    for name in ("templates", "sandbox", "demo"):
        (data / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    link, made = data / "demo/distribution", demo_distribution()
    with suppress(FileExistsError):
        link.symlink_to(made)
    if link.resolve() != made.resolve():
        link.unlink()
        link.symlink_to(made)
    return data


def repository(folder: Path, files: dict[str, bytes | str]) -> Path:
    """A git repository with one commit of these files; a str is the target of a symlink."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    put(folder, files)
    commit_all(folder, "First")
    return folder


def put(folder: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def spec(name: str = "hello", *, sources: tuple[str, ...] = (), version: str = "1.0", head: str = "") -> bytes:
    tags = "\n".join(f"Source{number}: {source}" for number, source in enumerate(sources))
    text = f"{head}\nName: {name}\nVersion: {version}\nRelease: 1\nSummary: s\nLicense: MIT\n{tags}\n%description\nd\n"
    return text.encode()


# --- HTTP --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The server's answer for a path. `cut` makes the body shorter than its Content-Length."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut: int = 0


@dataclass
class Server:
    """Answers by path; `seen` are the paths asked for, `authorizations` what came with them."""

    port: int = 0
    host: str = "127.0.0.1"
    answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    repositories: Path | None = None
    login: str | None = None
    seen: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def url(self, path: str, *, login: str = "") -> str:
        return f"http://{login}{'@' if login else ''}{self.host}:{self.port}{path}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.seen.append(path)
        self.authorizations.append(request.headers.get("Authorization"))
        wanted = f"Basic {base64.b64encode(self.login.encode()).decode()}" if self.login else None
        answer = self.answers.get(path)
        if wanted and request.headers.get("Authorization") != wanted:
            _send(request, Answer(status=401, headers=(("WWW-Authenticate", "Basic"),)))
        elif callable(answer):
            answer(request)
        elif answer:
            _send(request, answer)
        elif self.repositories and path.startswith("/git/"):
            _smart_git(request, self.repositories)
        else:
            _send(request, Answer(b"no such thing", 404))


def _send(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    request.send_response(answer.status)
    for name, value in answer.headers:
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(answer.body)))
    request.end_headers()
    request.wfile.write(answer.body[: len(answer.body) - answer.cut])
    request.close_connection = True


def _smart_git(request: BaseHTTPRequestHandler, root: Path) -> None:
    """Git's own CGI program, on one request."""
    path, _, query = request.path.removeprefix("/git").partition("?")
    body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
    env = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.command,
        "CONTENT_TYPE": request.headers.get("Content-Type") or "",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding") or "",
        "GIT_PROTOCOL": request.headers.get("Git-Protocol") or "",
    }
    done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False, timeout=30)
    head, _, rest = done.stdout.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
    status = int(fields.pop("Status", "200").split()[0])
    _send(request, Answer(rest, status, tuple(fields.items())))


@contextmanager
def http_server(host: str = "127.0.0.1") -> Iterator[Server]:
    """Serve on a free port of an address of the loopback until the block ends."""
    server = Server(host=host)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.handle(self)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer((host, 0), Handler) as listening:
        listening.daemon_threads = True
        server.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
