"""Forged or moved messages in the queue of a worker with more rights: a real publisher of one slot."""

import base64
import bz2
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from farm import queues, wire
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.steps.registry import step_type
from tests.messages import KINDS, work_of
from tests.redis_server import redis_server
from tests.waiting import until

pytestmark = pytest.mark.live

ROOT = Path(__file__).parent.parent.parent
BUILD = "3.build.x86_64.1"
UPLOAD = "4.upload.x86_64.1"


@dataclass
class Publisher:
    log: Path
    leases: Leases
    control: Control
    client: redis.Redis
    app: Celery
    pid: int

    def peak_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    def says(self, words: str) -> bool:
        return words in self.log.read_text(errors="replace")

    def forge(self, task: str, label: object, **more: object) -> None:
        order = {"attempt": label, "v": wire.VERSION, **more}
        self.app.send_task(task, kwargs=order, queue=queues.PUBLISH, ignore_result=True)

    def offer(self, label: str) -> None:
        """An upload of artifacts that the store does not have, as any publisher can report them."""
        self.leases.offer(replace(work_of("upload"), attempt=label))

    def reported(self, label: str, *, within_s: float = 15) -> float:
        """How long it takes until it is reported."""
        reports: list[wire.AnyReport] = []

        def is_there() -> bool:
            reports.extend(self.control.receive(timeout_s=0.05).reports)
            self.control.acknowledge()
            return label in {report.attempt for report in reports}

        took_s = until(is_there, f"the report of {label}", within_s=within_s)
        assert {report.attempt for report in reports} == {label}
        return took_s


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FARM_DATA": str(tmp_path)}
    settings = Settings.from_env(env)
    argv = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-n", "publish@here"]
    argv += ["-Q", queues.PUBLISH, "-c", "1", "-P", "prefork"]
    log = tmp_path / "worker.log"
    with redis_server(settings.socket), redis.Redis.from_url(settings.redis) as client, log.open("wb") as output:
        worker = subprocess.Popen(argv, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        app = Celery("forger", broker=settings.broker)
        app.conf.task_create_missing_queues = True
        leases, control = Leases(settings), Control(settings)
        try:
            until(lambda: b"publish@here ready." in log.read_bytes(), "the worker to be ready")
            yield Publisher(log, leases, control, client, app, worker.pid)
            assert worker.poll() is None
        finally:
            app.close()
            leases.close()
            control.close()
            worker.terminate()
            worker.wait(30)


def test_a_build_that_is_moved_to_a_publisher_does_not_run_there(publisher: Publisher) -> None:
    """With no task of that kind, and not under the name of another kind either."""
    publisher.leases.offer(replace(work_of("build"), attempt=BUILD))
    for kind in KINDS:
        publisher.forge(step_type(kind).task, BUILD)
    for label in ("3.fetch.1", "rubbish", "../..", 7, None, ["x"], "9" * 100_000):
        publisher.forge(step_type("upload").task, label)
    publisher.forge(step_type("upload").task, BUILD, v=99)
    publisher.offer(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD)
    publisher.reported(UPLOAD)
    states = publisher.leases.states([BUILD])
    assert (states[BUILD].is_offered, states[BUILD].holder) == (True, None)
    assert publisher.says("Received unregistered task of type 'farm.build'")
    assert publisher.says(f"Dropped {BUILD}: '{BUILD}' is no attempt of farm.upload")


def test_many_unexpected_messages_of_uploads_delay_no_other(publisher: Publisher) -> None:
    for number in range(300):
        publisher.forge(step_type("upload").task, f"{number + 10}.upload.x86_64.1")
    publisher.offer(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD)
    publisher.reported(UPLOAD)


def test_a_flood_of_builders_holds_up_no_message_of_the_scheduler(publisher: Publisher) -> None:
    """The account of any builder could stop all uploads. Its messages now wait behind the scheduler's, which sends an
    upload again when no publisher has claimed it for some seconds."""
    publisher.app.send_task("farm.upload", kwargs={}, queue="model", ignore_result=True)
    model = publisher.client.rpop("model")
    publisher.client.lpush(queues.behind(queues.PUBLISH), *([model] * 20_000))
    publisher.offer(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD)
    publisher.reported(UPLOAD)
    assert publisher.client.llen(queues.behind(queues.PUBLISH)) > 1000


def test_a_message_behind_all_others_is_taken_too(publisher: Publisher) -> None:
    publisher.offer(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD, v=99)
    publisher.app.send_task("farm.upload", kwargs={"attempt": UPLOAD, "v": wire.VERSION}, queue="model")
    publisher.client.lmove("model", queues.behind(queues.PUBLISH))
    publisher.reported(UPLOAD)


def test_other_features_of_celery_are_closed_to_a_forger(publisher: Publisher) -> None:
    """Callbacks would be sent with the publisher's account; a time to wait for would fill its memory."""
    extra: Any = {"queue": queues.SOURCE, "ignore_result": True}
    other = publisher.app.signature(step_type("fetch").task, kwargs={"attempt": "1.fetch.1", "v": wire.VERSION})
    publisher.offer(UPLOAD)
    publisher.app.send_task(
        step_type("upload").task,
        kwargs={"attempt": UPLOAD, "v": wire.VERSION},
        queue=queues.PUBLISH,
        link=[other.set(**extra)],
        link_error=[other.set(**extra)],
        chain=[other.set(**extra)],
        countdown=3600,
        expires=1,
        time_limit=1,
        ignore_result=True,
    )
    publisher.reported(UPLOAD)
    for name in ("celery.accumulate", "celery.map", "celery.chord_unlock", "celery.backend_cleanup"):
        publisher.app.send_task(name, args=[], queue=queues.PUBLISH, ignore_result=True)
        until(lambda name=name: publisher.says(f"task '{name}' is none of the farm's"), f"{name} to be dropped")
    assert publisher.client.llen(queues.SOURCE) == 0


_PICKLED = {
    "body": "x",
    "headers": {"task": "farm.upload", "id": UPLOAD},
    "content-type": "application/x-python-serialize",
    "content-encoding": "binary",
    "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}},
}
RUBBISH = (
    *(b"rubbish", b"", b"\xff\xfe", b"{}", b"[]", b"1", b"null", b'{"body":1}', b"[" * 100_000),
    json.dumps(_PICKLED).encode(),
    json.dumps(_PICKLED | {"properties": {"delivery_tag": ["x"], "delivery_info": 7}}).encode(),
    json.dumps(_PICKLED | {"headers": 7}).encode(),
    json.dumps(_PICKLED | {"content-type": "application/json", "content-encoding": "no-such"}).encode(),
)


def test_a_malformed_message_ends_no_worker(publisher: Publisher) -> None:
    """The fixture looks whether the worker lives. Each before a message that is sound."""
    for number, entry in enumerate(RUBBISH, start=10):
        label = f"{number}.upload.x86_64.1"
        publisher.client.lpush(queues.PUBLISH, entry)
        publisher.offer(label)
        publisher.forge(step_type("upload").task, label)
        publisher.reported(label)


_ODD_HEADERS: tuple[dict[str, Any], ...] = (
    {"task": []},
    {"id": []},
    {"id": {"a": 1}},
    {"id": "x" * 2000},
    {"timelimit": True},
    {"eta": 7},
    {"expires": {}},
    {"shadow": ["x"]},
    {"root_id": 1},
    {"retries": "x"},
    {"compression": "application/x-bz2"},
    {"compression": 7},
    {"stamps": 1, "stamped_headers": 7},
)


def test_odd_headers_use_up_no_slot(publisher: Publisher) -> None:
    """A message that is dropped without being acknowledged counts as one that the only slot works on."""
    publisher.app.send_task(step_type("upload").task, kwargs={}, queue="model", ignore_result=True)
    model = json.loads(publisher.client.rpop("model"))  # type: ignore[arg-type]
    for headers in _ODD_HEADERS:
        publisher.client.lpush(queues.PUBLISH, json.dumps(model | {"headers": model["headers"] | headers}))
    publisher.offer(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD)
    publisher.reported(UPLOAD)


def test_a_compressed_answer_is_not_read(publisher: Publisher) -> None:
    publisher.app.send_task(step_type("upload").task, kwargs={}, queue="model", ignore_result=True)
    model = json.loads(publisher.client.rpop("model"))  # type: ignore[arg-type]
    bomb = base64.b64encode(bz2.compress(bytes(2**30))).decode()
    before_kib = publisher.peak_kib()
    headers = model["headers"] | {"compression": "application/x-bz2"}
    packed = {"content-type": "application/data", "content-encoding": "bz2"}
    for more in ({"headers": headers}, packed, {"properties": model["properties"] | {"body_encoding": "bz2"}}):
        publisher.client.lpush(queues.PUBLISH, json.dumps(model | {"body": bomb} | more))
    publisher.offer(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD)
    publisher.reported(UPLOAD)
    assert publisher.peak_kib() - before_kib < 100 * 1024


def test_an_upload_that_comes_early_waits_for_its_offer(publisher: Publisher) -> None:
    publisher.leases.expect(UPLOAD)
    publisher.forge(step_type("upload").task, UPLOAD)
    until(lambda: publisher.client.hget(f"farm:offer:{UPLOAD}", "waits") == b"1", "it to wait")
    publisher.offer(UPLOAD)
    publisher.reported(UPLOAD)
    assert not publisher.says("Dropped")


def test_messages_of_uploads_that_are_expected_hold_the_slot_for_moments(publisher: Publisher) -> None:
    """A builder can guess the labels of all uploads to come; each held a publisher's slot for 10 s."""
    labels = [f"{number + 10}.upload.x86_64.1" for number in range(10)]
    publisher.leases.hand_on(expects=labels)
    for label in labels * 3:
        publisher.forge("farm.upload", label)
    publisher.offer(UPLOAD)
    publisher.forge("farm.upload", UPLOAD)
    assert publisher.reported(UPLOAD, within_s=30) < 20
    work = replace(work_of("upload"), attempt=labels[0])
    assert publisher.leases.hand_on(works=[work]) == {labels[0]}, "the scheduler sends its message again"


def test_a_number_in_place_of_an_offer_costs_its_attempt_alone(publisher: Publisher) -> None:
    """An account may count in the offers of its own kinds of attempts, and put a number where work would be."""
    publisher.client.hincrby(f"farm:offer:{UPLOAD}", "work", 1)
    publisher.forge("farm.upload", UPLOAD)
    until(lambda: publisher.says(f"Dropped {UPLOAD}: Expected"), "it to be dropped")
    notices = publisher.control.receive(timeout_s=5).notices
    assert [(one.notice, one.attempt) for one in notices] == [(wire.NoticeKind.HANDED_BACK, UPLOAD)]
    publisher.control.acknowledge()
    other = "5.upload.x86_64.1"
    publisher.client.hincrby(f"farm:offer:{other}", "work", 1)
    publisher.offer(other)
    publisher.forge("farm.upload", other)
    publisher.reported(other)


def test_work_of_another_step_under_an_uploads_label_is_not_done(publisher: Publisher) -> None:
    """An account that may write offers of its own queue may try."""
    evil = replace(work_of("build"), attempt=BUILD)
    publisher.client.hset(f"farm:offer:{UPLOAD}", "work", wire.encode_work(evil))  # type: ignore[arg-type]
    publisher.forge(step_type("upload").task, UPLOAD)
    until(lambda: publisher.says(f"Dropped {UPLOAD}: the work that was offered"), "it to be dropped")
