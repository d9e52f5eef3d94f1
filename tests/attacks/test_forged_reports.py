"""A build host turned evil: it reads and writes all keys of its queue, and may send anything to `control`.

Scheduler, Redis and database are real; the workers build nothing.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from farm import queues, wire
from farm.broker.control import Control
from farm.broker.leases import Leases, Touch
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import Build, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.work import AnyResult, AnyWork, StepResult
from farm.steps.build import BuildInput, BuildResult
from farm.steps.upload import UploadResult
from farm.store.store import Store
from farm.wire import NoticeKind, digest_of
from tests.fake_workers import Answer, FakeWorkers, artifact, report_for, succeed, token_of
from tests.messages import KINDS, worker_facts
from tests.redis_server import redis_server
from tests.scheduling import scheduling
from tests.waiting import until

BUILD = queues.build_queue(Arch.X86_64)
HEADS = ("demo/x86_64/os", "demo/aarch64/os", "demo/source", "demo/x86_64/debug")
ITS_OWN = "http://evil.example/repository/"
TROUBLE = wire.TroubleReport(code="network", retryable=True, message="no route to host")


@dataclass
class Farm:
    """`answer` is what workers do with `build` steps; until `go_on` is set, honest ones build."""

    settings: Settings
    store: Store
    client: redis.Redis
    control: Control
    leases: Leases
    go_on: threading.Event = field(default_factory=threading.Event)

    def enqueue(self) -> int:
        source = Source(kind=SourceKind.GIT, url="https://bot:hunter2@example.org/hello.git")
        batch = self.store.add_batch([BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))], owner="ann")
        self.control.wake()
        return batch.builds[0].id

    def honest(self, work: AnyWork) -> Answer:
        if work.kind == "build":
            self.go_on.wait(30)
        return succeed(work.kind)

    def runs(self, build_id: int) -> bool:
        steps = self.store.build(build_id).steps
        return any(step.kind == "build" and step.status is Status.RUNNING for step in steps)

    def finished(self, build_id: int) -> Build:
        until(lambda: self.store.build(build_id).status is Status.FINISHED, f"the end of build {build_id}")
        return self.store.build(build_id)

    def attempts(self, build_id: int) -> list[int]:
        return [len(step.attempts) for step in self.store.build(build_id).steps]

    def is_heard(self) -> None:
        """The scheduler has read all documents in `control`."""
        lists = [name(role) for role in queues.CONTROL_ROLES for name in (queues.control_list, queues.control_taken)]
        until(lambda: not self.client.exists(*lists), "the scheduler to look at it all")

    def notice(self, kind: NoticeKind, label: str, token: str, worker: str = "build@one") -> None:
        """Past the honest sender's checks."""
        notice = wire.Notice(notice=kind, attempt=label, token=token, worker=worker, reason="evil")
        self.client.lpush(queues.control_list("build.x86_64"), wire.encode_notice(notice))

    def seen(self) -> dict[str, bytes]:
        """Every key with its whole content."""
        return {bytes(key).decode(): self.client.dump(key) or b"" for key in self.client.scan_iter()}  # type: ignore[misc]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_LEASE_S": "10", "FARM_RETRY_DELAY_S": "0.01"})
    with redis_server(settings.socket), redis.Redis.from_url(settings.redis) as client:
        store = Store.open(settings.database, create=True)
        control, leases = Control(settings), Leases(settings)
        with scheduling(settings):
            yield Farm(settings, store, client, control, leases)
        leases.close()
        control.close()
        store.close()


def test_an_evil_builder_cannot_report_the_upload_after_its_build(farm: Farm) -> None:
    """It held the upload's token, and its report set the heads of a whole target."""
    stolen: list[AnyResult] = [
        StepResult(outcome=Outcome.SUCCEEDED, output=UploadResult(versions=tuple((path, 7, ITS_OWN) for path in paths)))
        for paths in (HEADS, HEADS[:1])  # more than this upload may change, and what it may
    ]

    def evil(work: AnyWork) -> Answer:
        upload = f"{work.build_id}.upload.x86_64.1"
        evil_report = report_for(work.attempt, token_of(work.attempt), work.kind, succeed(work.kind))
        farm.control.report(evil_report)
        for _ in range(20):  # before, while and after it is offered
            for token in (token_of(work.attempt), "", "t", digest_of("")):
                for answer in stolen:
                    farm.control.report(report_for(upload, token, "upload", answer, worker="publish@one"))
            time.sleep(0.01)
        return succeed(work.kind)

    with (
        FakeWorkers(farm.settings, names=(BUILD,), host="evil", answer=evil),
        FakeWorkers(farm.settings, names=(queues.SOURCE, queues.PUBLISH)) as honest,
    ):
        builds = [farm.finished(farm.enqueue()) for _ in range(2)]
        farm.is_heard()
    assert [build.outcome for build in builds] == [Outcome.SUCCEEDED] * 2
    assert [work.kind for work in honest.done].count("upload") == 2, "whoever publishes did it"
    assert [farm.attempts(build.id) for build in builds] == [[1, 1, 1, 1]] * 2
    assert "evil" not in repr(farm.store.heads())
    assert farm.store.holds() == {}


def test_no_build_is_given_a_repository_that_a_report_named(farm: Farm) -> None:
    """Not even the account of a publisher may."""

    def answer(work: AnyWork) -> Answer:
        if work.kind == "upload":
            versions = tuple((path, 7, ITS_OWN) for path in ("demo/x86_64/os", "demo/source"))
            return StepResult(outcome=Outcome.SUCCEEDED, output=UploadResult(versions=versions))
        return succeed(work.kind)

    with FakeWorkers(farm.settings, answer=answer) as workers:
        for _ in range(2):
            farm.finished(farm.enqueue())
    given = [work.input.repositories for work in workers.done if isinstance(work.input, BuildInput)]
    assert given == [(), ()]
    assert ITS_OWN not in repr(workers.done)


def test_a_report_of_anothers_attempt_changes_nothing(farm: Farm) -> None:
    with FakeWorkers(farm.settings, answer=farm.honest):
        build_id = farm.enqueue()
        until(lambda: farm.runs(build_id), "the build step to run")
        label = f"{build_id}.build.x86_64.1"
        digest = (farm.client.hget(f"farm:lease:{label}", "holder") or b"").decode()  # type: ignore[union-attr]
        rpms = (artifact("evil.rpm", ArtifactKind.RPM),)
        evil: AnyResult = StepResult(outcome=Outcome.SUCCEEDED, output=BuildResult(rpms=rpms))
        for token in ("guess", "", digest, digest_of(digest), "\0"):
            for answer in (evil, TROUBLE):
                farm.control.report(report_for(label, token, "build", answer))
        farm.is_heard()
        assert farm.runs(build_id)
        assert farm.leases.touch(label, token_of(label)) is Touch.HELD
        farm.go_on.set()
        build = farm.finished(build_id)
    assert (build.outcome, farm.attempts(build_id)) == (Outcome.SUCCEEDED, [1, 1, 1, 1])
    assert "evil" not in repr(build)
    assert farm.store.holds() == {}


@pytest.mark.parametrize("kind", NoticeKind)
def test_notices_with_a_guessed_token_end_nothing(farm: Farm, kind: NoticeKind) -> None:
    """Three of them once ended a build as `errored`, 3 workers lost."""
    with FakeWorkers(farm.settings, answer=farm.honest):
        build_id = farm.enqueue()
        until(lambda: farm.runs(build_id), "the build step to run")
        label = f"{build_id}.build.x86_64.1"
        for number in range(9):
            farm.notice(kind, label, "guess" * (number % 3))
            farm.is_heard()
            assert farm.leases.touch(label, token_of(label)) is Touch.HELD
        # The same for an attempt that has not been sent yet, and for labels of no attempt.
        for other in (f"{build_id}.upload.x86_64.1", f"{build_id}.build.x86_64.99", "", "..", "x" * 10_000):
            farm.notice(kind, other, "guess")
        farm.is_heard()
        assert farm.runs(build_id)
        farm.go_on.set()
        build = farm.finished(build_id)
    assert (build.outcome, farm.attempts(build_id)) == (Outcome.SUCCEEDED, [1, 1, 1, 1])
    assert farm.store.holds() == {}


def test_a_worker_that_asks_for_anothers_lease_is_turned_away_alone(farm: Farm) -> None:
    """While Redis has forgotten whose it is, too."""
    with FakeWorkers(farm.settings, answer=farm.honest):
        build_id = farm.enqueue()
        until(lambda: farm.runs(build_id), "the build step to run")
        label = f"{build_id}.build.x86_64.1"
        farm.client.delete(f"farm:lease:{label}")
        farm.leases.ask_back(label, "guess", "build@evil")
        until(lambda: farm.leases.touch(label, "guess") is Touch.GONE, "the answer")
        assert farm.leases.touch(label, token_of(label)) is Touch.MISSING
        farm.leases.ask_back(label, token_of(label), "build@liar")
        until(lambda: farm.leases.touch(label, token_of(label)) is Touch.HELD, "the lease")
        assert farm.leases.holders([label])[label].worker == "build@one", "as SQL has seen it"
        farm.go_on.set()
        assert farm.finished(build_id).outcome is Outcome.SUCCEEDED
    assert farm.attempts(build_id) == [1, 1, 1, 1]


def test_an_account_that_overwrites_a_lease_of_its_queue_cannot_report_it(farm: Farm) -> None:
    with FakeWorkers(farm.settings, answer=farm.honest):
        build_id = farm.enqueue()
        until(lambda: farm.runs(build_id), "the build step to run")
        label = f"{build_id}.build.x86_64.1"
        farm.client.hset(f"farm:lease:{label}", mapping={"holder": digest_of("its own"), "worker": "build@evil"})
        farm.control.report(report_for(label, "its own", "build", TROUBLE))
        farm.notice(NoticeKind.HANDED_BACK, label, "its own")
        farm.is_heard()
        assert farm.runs(build_id)
        farm.go_on.set()
        build = farm.finished(build_id)
    assert (build.outcome, farm.attempts(build_id)) == (Outcome.SUCCEEDED, [1, 1, 1, 1])
    assert build.steps[2].attempts[0].worker == "build@one"


def test_trouble_counts_on_the_holder_of_the_lease_and_not_on_the_host_in_the_report(farm: Farm) -> None:
    def evil(work: AnyWork) -> Answer | None:
        report = report_for(work.attempt, token_of(work.attempt), work.kind, TROUBLE, worker="build@victim")
        farm.control.report(report)
        return None

    with (
        FakeWorkers(farm.settings, names=(BUILD,), host="evil", answer=evil),
        FakeWorkers(farm.settings, names=(queues.SOURCE, queues.PUBLISH)),
    ):
        build_ids = [farm.enqueue() for _ in range(3)]
        builds = [farm.finished(build_id) for build_id in build_ids]
    assert {attempt.worker for build in builds for attempt in build.steps[2].attempts} == {"build@evil"}
    assert "victim" not in repr(farm.store.holds())


def test_many_refusals_of_unclaimed_offers_make_few_attempts_and_no_trouble(farm: Farm) -> None:
    """Its worker is registered but slow: the message waits in the queue."""
    farm.leases.announce(worker_facts("build@slow", slots=1))
    with FakeWorkers(farm.settings, names=(queues.SOURCE,)):
        build_id = farm.enqueue()
        until(lambda: farm.client.llen(BUILD) == 1, "the build step to be sent")
        until_at = time.monotonic() + 3
        while time.monotonic() < until_at:
            for number in range(1, 10):
                farm.notice(NoticeKind.REFUSED, f"{build_id}.build.x86_64.{number}", "")
                farm.notice(NoticeKind.HANDED_BACK, f"{build_id}.build.x86_64.{number}", "guess")
            farm.is_heard()
    with FakeWorkers(farm.settings, names=(BUILD, queues.PUBLISH)):
        build = farm.finished(build_id)
    assert build.outcome is Outcome.SUCCEEDED
    assert len(build.steps[2].attempts) == 1, "what never ran leaves no row"
    assert build.steps[2].attempts[0].number <= 3
    assert farm.store.holds() == {}


def test_no_key_has_a_token_and_a_password_is_with_fetches_alone(farm: Farm) -> None:
    """Checked in all keys that a role may read, at each moment of a build."""
    looked: list[str] = []

    def answer(work: AnyWork) -> Answer:
        for key, content in farm.seen().items():
            assert b"token of" not in content, key
            assert token_of(work.attempt) not in key
            if b"hunter2" in content:
                assert key == f"farm:lease:{work.build_id}.fetch.1"
        looked.append(work.kind)
        return succeed(work.kind)

    with FakeWorkers(farm.settings, answer=answer):
        assert farm.finished(farm.enqueue()).outcome is Outcome.SUCCEEDED
    assert looked == list(KINDS)


def test_messages_point_at_an_attempt_and_give_no_right_to_it(farm: Farm) -> None:
    """Checked in the messages of a queue, and in the pages of Flower."""
    farm.leases.announce(worker_facts("source@slow", slots=1))
    farm.enqueue()
    until(lambda: farm.client.llen(queues.SOURCE) == 1, "the fetch step to be sent")
    (body,) = farm.client.lrange(queues.SOURCE, 0, -1)  # type: ignore[misc]
    message = json.loads(body)
    _, order, embedded = json.loads(base64.b64decode(message["body"]))
    assert order == {"attempt": "1.fetch.1", "v": wire.VERSION}
    assert [link["kwargs"] for link in embedded["chain"]] == [{"attempt": "1.srpm.1", "v": wire.VERSION}]
    assert "token" not in json.dumps([message["headers"], order, embedded])
