"""Workers that build nothing: they take real messages from a real Redis, claim, and report, as workers.agent does."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import redis

from farm import queues, wire
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import LeaseLost
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.work import AnyResult, AnyWork, StepResult, Work
from farm.model.worker import Holder
from farm.steps.build import BuildResult
from farm.steps.fetch import FetchResult
from farm.steps.logs import LogsResult
from farm.steps.srpm import SrpmResult
from farm.steps.upload import UploadInput, UploadResult
from farm.store.read_view import Ready
from farm.store.scheduling import Committed, Pick
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from tests.messages import worker_facts

Answer = AnyResult | wire.TroubleReport


def artifact(name: str, kind: ArtifactKind, nevra: str | None = None) -> Artifact:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Artifact(name=name, kind=kind, sha256=digest, size_bytes=len(name), identity=nevra)


def output_of(
    kind: str,
    package: str = "hello",
    *,
    noarch: bool = False,
    exclusive: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> object:
    """The output of a successful step of this kind."""
    srpm = artifact(f"{package}-1-1.src.rpm", ArtifactKind.SRPM, f"{package}-1-1.src")
    match kind:
        case "fetch":
            return FetchResult(archive=artifact(f"{package}.tar", ArtifactKind.SOURCE), spec="a.spec", commit="c0ffee")
        case "srpm":
            return SrpmResult(
                srpm=srpm,
                identity=f"{package}-1-1.src",
                build_requires=("gcc",),
                exclusive_arches=exclusive,
                exclude_arches=exclude,
                noarch=noarch,
            )
        case "build":
            # A build of any arch may make it.
            return BuildResult(rpms=(artifact(f"{package}-1-1.noarch.rpm", ArtifactKind.RPM, f"{package}-1-1.noarch"),))
        case "upload":
            return UploadResult(versions=(("demo/source", 1, "file:///demo/1/"),))
        case "logs":
            return LogsResult(url="file:///demo/logs/1/")
        case _:
            raise ValueError(f"{kind} is no step type of the farm's own")


def succeed(kind: str, package: str = "hello", **spec: Any) -> AnyResult:
    log = artifact(f"{kind}.log", ArtifactKind.LOG)
    return StepResult(outcome=Outcome.SUCCEEDED, artifacts=(log,), output=output_of(kind, package, **spec))


def fail(reason: str = "make: *** [all] Error 2", outcome: Outcome = Outcome.FAILED) -> AnyResult:
    return StepResult(outcome=outcome, reason=reason, excerpt="lines around it")


def token_of(label: str) -> str:
    """The token that a fake worker makes for an attempt."""
    return f"token of {label}"


def held_by(worker: str, label: str, token: str | None = None) -> Holder:
    """The lease of a worker of the tests'."""
    return Holder(digest=wire.digest_of(token or token_of(label)), worker=worker)


def picked(ready: Iterable[Ready], *, wall_s: int = 60) -> list[Pick]:
    """As the scheduler does, with one limit for every step."""
    return [Pick(ready=one, wall_s=wall_s, following_wall_s=wall_s) for one in ready]


def settle_reports(store: Store, reports: Sequence[wire.AnyReport], now: datetime, around: SettlePolicy) -> Committed:
    """As the scheduler does, where each attempt is leased by the worker that its report names."""
    leases = {report.attempt: held_by(report.worker, report.attempt) for report in reports}
    return store.settle(reports, now, around, leases)


def report_for(
    attempt: str, token: str, kind: str, answer: Answer | None = None, *, worker: str = "build@one"
) -> wire.AnyReport:
    answer = answer or succeed(kind)
    now = datetime.now(UTC)
    is_trouble = isinstance(answer, wire.TroubleReport)
    return wire.Report(
        attempt=attempt,
        token=token,
        kind=kind,
        worker=worker,
        started_at=now,
        finished_at=now,
        result=None if is_trouble else answer,  # type: ignore[arg-type]
        trouble=answer if is_trouble else None,  # type: ignore[arg-type]
    )


class FakeWorkers:
    """One thread per slot. `answer` is asked what becomes of each attempt; None makes its worker die silently."""

    def __init__(
        self,
        settings: Settings,
        *,
        slots: int = 2,
        names: Sequence[str] = (queues.SOURCE, queues.build_queue(Arch.X86_64), queues.PUBLISH),
        answer: Callable[[AnyWork], Answer | None] | None = None,
        host: str = "one",
        offer_wait_s: float = 5,
    ) -> None:
        self.settings = settings
        self.done: list[AnyWork] = []
        self.turned_away: list[str] = []
        self._answer = answer or (lambda work: succeed(work.kind, work.package))
        self._names = tuple(names)
        self._host = host
        self._offer_wait_s = offer_wait_s
        self._slots = slots
        self._stop = threading.Event()
        self._leases = Leases(settings)
        self._control = Control(settings)
        self._redis = redis.Redis.from_url(settings.redis, protocol=2)
        self._threads = [
            threading.Thread(target=self._slot, args=(name,), daemon=True) for name in names for _ in range(slots)
        ]

    def __enter__(self) -> "FakeWorkers":
        self.announce()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for name in self._names:
            with suppress(redis.RedisError):
                self._leases.retire(self.node(name))
        self._leases.close()
        self._control.close()
        self._redis.close()

    def node(self, name: str) -> str:
        return f"{name.partition('.')[0]}@{self._host}"

    def announce(self) -> None:
        for name in self._names:
            arches = tuple(arch for arch in Arch if name == queues.build_queue(arch)) or (Arch.X86_64,)
            facts = worker_facts(self.node(name), names=(name,), slots=self._slots)
            self._leases.announce(replace(facts, arches=arches))

    def _slot(self, name: str) -> None:
        while not self._stop.is_set():
            try:
                found = self._redis.brpop([name], timeout=0.1)  # type: ignore[arg-type]
            except redis.RedisError:
                self._stop.wait(0.05)
                continue
            if found is not None:
                self._message(name, found[1])  # type: ignore[index]

    def _message(self, name: str, body: bytes) -> None:
        message = json.loads(body)
        _, order, embedded = json.loads(base64.b64decode(message["body"]))
        if not self._attempt(name, order):
            return
        chain = embedded["chain"] or []
        if chain:  # Celery does this after a task: the next link goes to its own queue
            following = chain[-1]
            inner = json.dumps([[], following["kwargs"], {"chain": chain[:-1]}]).encode()
            again = {**message, "body": base64.b64encode(inner).decode()}
            self._redis.lpush(following["options"]["queue"], json.dumps(again))

    def _attempt(self, name: str, order: dict[str, Any]) -> bool:
        """True if the chain goes on."""
        try:
            token = token_of(order["attempt"])
            work = self._leases.claim(order["attempt"], token, self.node(name), wait_s=self._offer_wait_s)
        except LeaseLost:
            self.turned_away.append(order["attempt"])
            return False
        self.done.append(work)
        answer = self._answer(work)
        if answer is None:
            return False
        report = report_for(work.attempt, token, work.kind, answer, worker=self.node(name))
        self._control.report(report)
        return report.result is not None and report.result.outcome.is_success


__all__ = ["Answer", "FakeWorkers", "UploadInput", "Work", "artifact", "fail", "output_of", "report_for", "succeed"]
