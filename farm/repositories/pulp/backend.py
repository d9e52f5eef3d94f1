"""The repository back end `pulp`: implements the protocol with the other modules of this folder.

Owns addresses, what each error says, and that a call ends soon after it is stopped, whatever Pulp does.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

import requests
from pulp_glue.common.exceptions import PulpException, PulpHTTPError

from farm.config import PULP, Settings
from farm.errors import BadRequest, BadSource, LeaseLost, RepositoryTrouble
from farm.formats.index import IndexedPackage
from farm.repositories.base import (
    KEEP_VERSIONS,
    RepositoryCheck,
    RepositoryFile,
    RepositoryKind,
    RepositoryName,
    RepositoryPackage,
    RepositoryVersion,
)
from farm.repositories.checks import (
    check_copy,
    check_files,
    check_format,
    check_has_packages,
    check_name,
    check_packages,
    check_removal,
    missing_from,
)
from farm.repositories.pulp import content
from farm.repositories.pulp.check import check
from farm.repositories.pulp.distributions import CURRENT
from farm.repositories.pulp.repository import GRACE_S, Repository
from farm.repositories.pulp.server import Context, PulpServer
from farm.repositories.pulp.together import Together
from farm.repositories.pulp.words import TaskFailed

_STOP_LOOKED_AT_S = 0.1
_CHECK_RETRY_S = 2.0
T = TypeVar("T")


class PulpRepositories:
    """Safe to use from many threads, processes and machines at once. Makes no connection until it is used."""

    def __init__(self, settings: Settings, *, grace_s: float = GRACE_S) -> None:
        """Versions that are younger than `grace_s` are kept, however many."""
        self._settings = settings
        self._grace_s = grace_s
        self._server = PulpServer(settings)
        self._together = Together(settings, alone_after=(TaskFailed, PulpHTTPError, BadSource))
        self._content_url: str | None = None

    def prepare(
        self, name: RepositoryName, packages: Sequence[RepositoryPackage], *, stop: threading.Event | None = None
    ) -> None:
        """See the protocol. Pulp has the packages afterwards, in no repository: its clean-up of orphans removes those
        that are not added."""
        check_packages(name, packages)
        _check_type(name)

        def work(context: Context) -> None:
            content.bring_packages(self._server, packages, context)

        self._run(f"{name.path}: packages were not brought", work, stop)

    def add(
        self,
        name: RepositoryName,
        packages: Sequence[RepositoryPackage],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """See the protocol."""
        check_packages(name, packages)
        _check_type(name)

        def work(context: Context) -> int:
            return self._publish(context, name, lambda: content.bring_packages(self._server, packages, context), keep)

        return self._run(f"{name.path}: packages were not added", work, stop)

    def copy(
        self,
        source: RepositoryName,
        version: int,
        into: RepositoryName,
        sha256s: Collection[str],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """See the protocol. The repositories share Pulp's content, of which nothing is sent."""
        check_copy(source, into, sha256s)
        _check_type(into)
        wanted = frozenset(sha256s)

        def bring(context: Context) -> Sequence[content.Unit]:
            origin = self._repository(context, source)
            found = content.packages_in(origin.kept(version), wanted, context) if version else {}
            if missing := wanted - found.keys():
                raise missing_from(source, version, missing)
            return tuple(found.values())

        def work(context: Context) -> int:
            return self._publish(context, into, lambda: bring(context), keep)

        return self._run(f"{into.path}: packages were not copied", work, stop)

    def remove(
        self,
        name: RepositoryName,
        sha256s: Collection[str],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """See the protocol."""
        check_removal(name, sha256s)
        _check_type(name)
        wanted = frozenset(sha256s)

        def work(context: Context) -> int:
            repository = self._repository(context, name)
            with self._together.locked(repository.name, context.stop):
                return repository.remove(wanted, keep=keep)

        return self._run(f"{name.path}: packages were not removed", work, stop)

    def index(self, name: RepositoryName, version: int) -> tuple[IndexedPackage, ...]:
        """See the protocol."""
        check_has_packages(name)
        _check_type(name)

        def work(context: Context) -> tuple[IndexedPackage, ...]:
            return content.index_of(self._repository(context, name).kept(version), context)

        return self._run(f"{name.path}: version {version} was not read", work) if version else ()

    def add_files(
        self, name: RepositoryName, files: Sequence[RepositoryFile], *, stop: threading.Event | None = None
    ) -> str:
        """See the protocol. Files are kept for as long as Pulp keeps them: the farm removes none."""
        check_files(name, files)

        def work(context: Context) -> str:
            self._publish(context, name, lambda: content.bring_files(self._server, files, context), 0)
            return self._url(context, name, None)

        return self._run(f"{name.path}: files were not added", work, stop)

    def current(self, name: RepositoryName) -> int:
        """See the protocol. Logs and records have no versions."""
        check_name(name)
        _check_type(name)
        if name.kind is RepositoryKind.LOGS:
            return 0
        return self._run(
            f"{name.path}: the newest version is not known",
            lambda context: self._repository(context, name).current(),
        )

    def url(self, name: RepositoryName, version: int | None = None) -> str:
        """See the protocol. Raises RepositoryTrouble while Pulp has not yet said where its content is served."""
        check_name(name)
        _check_type(name)
        if self._content_url is not None:
            return self._address(self._content_url, name, version)
        return self._run(f"{name.path}: its address is not known", lambda context: self._url(context, name, version))

    def versions(self, name: RepositoryName) -> tuple[RepositoryVersion, ...]:
        """See the protocol. Logs and records have none."""
        check_name(name)
        _check_type(name)
        if name.kind is RepositoryKind.LOGS:
            return ()

        def work(context: Context) -> tuple[RepositoryVersion, ...]:
            base = self._url(context, name, None).removesuffix(f"{CURRENT}/")
            return self._repository(context, name).versions(base)

        return self._run(f"{name.path}: its versions are not known", work)

    def rollback(self, name: RepositoryName, to: int) -> int:
        """See the protocol."""
        check_name(name)
        _check_type(name)
        if name.kind is RepositoryKind.LOGS:
            raise BadRequest(f"{name.path} has files without versions; nothing can be rolled back there")

        def work(context: Context) -> int:
            repository = self._repository(context, name)
            with self._together.locked(repository.name, context.stop):
                return repository.rollback(to)

        return self._run(f"{name.path}: it was not rolled back", work)

    def keeps(self, sha256s: Collection[str]) -> frozenset[str]:
        """See the protocol. Pulp has a package until it clears away its orphans."""
        wanted = sorted(sha256s)
        if not wanted:
            return frozenset()
        return self._run("packages were not looked up", lambda context: content.known_packages(wanted, context))

    def check(self) -> tuple[RepositoryCheck, ...]:
        """See the protocol. Leaves nothing in Pulp. Does not wait for one that is away, as publications do."""
        soon = replace(self._settings, pulp_retry_s=min(self._settings.pulp_retry_s, _CHECK_RETRY_S))
        return check(PulpServer(soon))

    def _publish(
        self, context: Context, name: RepositoryName, bring: Callable[[], Sequence[content.Unit]], keep: int
    ) -> int:
        repository = self._repository(context, name)
        with self._together.coming(repository.name):
            units = {unit.key: unit.prn for unit in bring()}
        if not units:
            return repository.add({}, keep=keep)
        return self._together.publish(
            repository.name, units, lambda wanted: repository.add(wanted, keep=keep), context.stop
        )

    def _repository(self, context: Context, name: RepositoryName) -> Repository:
        return Repository(context, name, grace_s=self._grace_s)

    def _url(self, context: Context, name: RepositoryName, version: int | None) -> str:
        if self._content_url is None:
            served = context.call("status_read")["content_settings"]
            domain = f"{context.pulp_domain}/" if context.domain_enabled else ""
            origin = self._settings.pulp_content_url or served["content_origin"] or self._settings.pulp_url
            self._content_url = f"{origin.rstrip('/')}/{served['content_path_prefix'].strip('/')}/{domain}"
        return self._address(self._content_url, name, version)

    def _address(self, content_url: str, name: RepositoryName, version: int | None) -> str:
        path = f"{self._settings.pulp_prefix}/{name.path}/{CURRENT if version is None else version}/"
        return content_url + quote(path)

    def _run(self, doing: str, work: Callable[[Context], T], stop: threading.Event | None = None) -> T:
        """Do it in a thread of its own, so that a request which hangs does not keep a stopped step from ending."""
        given, ours = stop or threading.Event(), threading.Event()
        result: Future[T] = Future()

        def run() -> None:
            try:
                with self._words(doing):
                    result.set_result(work(self._server.open(ours)))
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=run, name="pulp", daemon=True).start()
        while not wait([result], timeout=None if stop is None else _STOP_LOOKED_AT_S).done:
            if given.is_set():
                ours.set()
                raise LeaseLost(f"{doing}: the step was stopped")
        return result.result()

    @contextmanager
    def _words(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (PulpException, requests.RequestException) as error:
            raise RepositoryTrouble(f"{doing}: {self._server.words(error)}") from error
        except RepositoryTrouble as error:
            raise RepositoryTrouble(f"{doing}: {error}") from error


def _check_type(name: RepositoryName) -> None:
    """Logs and records are plain files, whatever the format of the packages. Raises BadRequest."""
    if name.kind is not RepositoryKind.LOGS:
        check_format(PULP, name.format)
