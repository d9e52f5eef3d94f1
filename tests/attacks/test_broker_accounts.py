"""Each account of the broker is refused what other roles have, and its URL reaches Redis however it is spelled."""

import hashlib
import json
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis
from kombu import Connection, Producer
from typer.testing import CliRunner

from farm import queues
from farm.broker import roles, scripts, transport
from farm.broker.control import Control
from farm.broker.leader import SchedulerLock
from farm.broker.leases import Leases, Touch
from farm.cli.main import app
from farm.config import Settings
from farm.errors import BadRequest, FarmNotRunning
from farm.repositories.pulp.together import Together
from farm.scheduler.sweep import Sweeper
from tests.attacks.conftest import ADMIN, Broker, broker_with_accounts
from tests.messages import report_of, worker_facts

transport.install()

BUILDER = "build.x86_64"
OTHER = "build.aarch64"

REFUSED = {
    BUILDER: (
        ("LPUSH", "source", "x"),
        ("BRPOP", "publish", "0.01"),
        ("LPUSH", "publish", "x"),
        ("LPUSH", "publish\x06\x163", "x"),
        ("LPUSH", OTHER, "x"),
        ("BRPOP", OTHER, "0.01"),
        ("LPUSH", "control", "x"),
        ("LPUSH", f"control:{OTHER}", "x"),
        ("LPUSH", "control:publish", "x"),
        ("RPOP", f"control:{BUILDER}"),
        ("DEL", f"control:{BUILDER}"),
        ("LMOVE", f"control:{BUILDER}", f"control:taken:{BUILDER}", "LEFT", "LEFT"),
        ("HGETALL", "farm:lease:1.build.x86_64.1"),
        ("HGET", "farm:lease:1.fetch.1", "work"),
        ("HGET", "farm:offer:1.build.aarch64.1", "work"),
        ("HGET", "farm:lease:1.upload.1", "work"),
        ("DEL", "farm:lease:1.upload.1"),
        ("SET", "farm:closed:1.build.x86_64.1", "1"),
        ("GETRANGE", "farm:log:1.build.x86_64.1", "0", "10"),
        ("SETRANGE", "farm:log:1.fetch.1", "0", "x"),
        ("SET", "farm:worker:publish:publish@one", "{}"),
        ("SADD", "farm:workers:publish", "x"),
        ("SMEMBERS", f"farm:workers:{BUILDER}"),
        ("HSET", f"farm:off:{BUILDER}", "build@one", "[]"),
        ("HSET", "farm:held", "one", "x"),
        ("SET", "farm:scheduler", "x"),
        ("HGET", "unacked:publish", "x"),
        ("HGET", "unacked", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("PUBLISH", "farm:events", "x"),
        ("SUBSCRIBE", "farm:events"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "PAUSE", "1"),
        ("MONITOR",),
        ("FLUSHALL",),
        ("SHUTDOWN",),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LIST"),
        ("MIGRATE", "127.0.0.1", "1", "x", "0", "1"),
    ),
    "source": (
        ("BRPOP", BUILDER, "0.01"),
        ("HGET", "farm:lease:1.build.x86_64.1", "work"),
        ("HGET", "farm:lease:1.upload.1", "work"),
        ("LPUSH", "publish", "x"),
        ("LPUSH", f"control:{BUILDER}", "x"),
        ("HGET", "farm:publish:x", "x"),
    ),
    "publish": (
        ("BRPOP", "source", "0.01"),
        ("HGET", "farm:lease:1.fetch.1", "work"),
        ("LPUSH", "control:source", "x"),
        ("LPUSH", BUILDER, "x"),
    ),
    "client": (
        ("HGET", "farm:lease:1.fetch.1", "work"),
        ("DEL", "farm:lease:1.fetch.1"),
        ("LPUSH", "control:source", "x"),
        ("LPUSH", "source", "x"),
        ("SET", "farm:worker:source:source@one", "{}"),
        ("SREM", "farm:workers:source", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("SET", "farm:log:1.fetch.1", "x"),
    ),
    "flower": (
        ("LPUSH", "source", "x"),
        ("LRANGE", "source", "0", "-1"),
        ("HGET", "farm:lease:1.fetch.1", "work"),
        ("LPUSH", "control:client", "wake"),
        ("GETRANGE", "farm:log:1.fetch.1", "0", "1"),
    ),
    "scheduler": (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("PUBLISH", "/0.celery.pidbox", "x")),
}


@pytest.mark.parametrize("account", REFUSED)
def test_an_account_is_refused_commands_that_its_role_does_not_need(broker: Broker, account: str) -> None:
    for words in REFUSED[account]:
        with broker.client(account) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*words)


@pytest.mark.parametrize("account", [*queues.WORKER_ROLES, "flower", queues.CLIENT])
def test_no_account_but_the_schedulers_makes_up_a_script(broker: Broker, account: str) -> None:
    """It could run without end, or fill the broker with keys that nothing removes."""
    for words in (
        ("SCRIPT", "LOAD", "while true do end"),
        ("EVAL", "while true do end", "0"),
        ("EVAL_RO", "while true do end", "0"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() end)"),
        ("SCRIPT", "FLUSH"),
        ("SCRIPT", "KILL"),
    ):
        with broker.client(account) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*words)


def test_a_script_has_no_more_rights_than_the_worker_that_runs_it(broker: Broker) -> None:
    with broker.client(ADMIN) as admin, broker.client(BUILDER) as client:
        name = admin.script_load("return redis.call('HGET', 'farm:lease:1.upload.1', 'work')")
        with pytest.raises(redis.ResponseError, match=r"executing the script|ACL failure"):
            client.evalsha(name, 1, "farm:wake:1.build.x86_64.1")


@pytest.mark.parametrize("account", [BUILDER, queues.CLIENT])
def test_no_other_account_goes_through_a_list_in_a_script_of_the_scheduler(
    broker: Broker, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such script, with as many keys as a command may have, kept the broker busy for most of a lease's time."""
    own = ["farm:publishing:a"]
    if account == BUILDER:
        own = ["farm:offer:1.build.x86_64.1", "farm:wake:1.build.x86_64.1"]
    with broker.client(ADMIN) as admin, broker.client(account) as client:
        for text in _scripts_of_the_scheduler(broker, tmp_path, monkeypatch):
            sha = admin.script_load(text)
            for names in (own * 20, own[:1] * 41, own[-1:] * 41, []):
                admin.config_resetstat()
                with suppress(redis.ResponseError):
                    client.evalsha(sha, len(names), *names, "/0.celeryev/x", *["9"] * 20)
                stats = admin.info("commandstats").values()
                assert sum(one["calls"] + one["rejected_calls"] for one in stats) < 8, f"it went on: {text}"


def _scripts_of_the_scheduler(broker: Broker, folder: Path, patch: pytest.MonkeyPatch) -> set[str]:
    """All scripts that its parts register, without those that other accounts run."""
    texts: set[str] = set()
    register = redis.Redis.register_script

    def noted(client: redis.Redis, text: str) -> object:
        texts.add(text)
        return register(client, text)

    patch.setattr(redis.Redis, "register_script", noted)
    settings = Settings.from_env({"FARM_DATA": str(folder), "FARM_BROKER_URL": broker.url("scheduler")})
    leases = Leases(settings)
    parts = (leases, Control(settings), Sweeper(settings, leases), SchedulerLock(settings))
    for part in parts:
        part.close()
    found = texts - set(scripts.SHARED)
    assert len(found) > 8
    return found


def test_a_worker_waits_for_the_scheduler_to_load_the_scripts(broker: Broker, tmp_path: Path) -> None:
    of_worker, of_scheduler = (
        Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url(account)})
        for account in (BUILDER, "scheduler")
    )
    with broker.client(ADMIN) as admin:
        admin.script_flush()
    with closing(Leases(of_worker)) as worker, closing(Leases(of_scheduler)) as scheduler, ThreadPoolExecutor() as pool:
        touched = pool.submit(worker.touch, "1.build.x86_64.1", "digest")
        wait([touched], timeout=0.5)
        assert not touched.done()
        scheduler.load_scripts()
        assert touched.result(timeout=5) is Touch.MISSING


def test_without_a_scheduler_the_scripts_that_are_missing_are_an_outage(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "_PATIENCE_S", 0.2)
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url(queues.CLIENT)})
    with broker.client(ADMIN) as admin:
        admin.script_flush()
    with closing(Control(settings)) as control, pytest.raises(FarmNotRunning, match="no scheduler has loaded"):
        control.wake()
    broker.load_scripts()


@pytest.mark.parametrize("account", queues.WORKER_ROLES)
def test_a_worker_registers_and_reports_in_its_own_role(broker: Broker, account: str, tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url(account)})
    leases, control = Leases(settings), Control(settings)
    name = f"{account.partition('.')[0]}@one"
    leases.announce(worker_facts(name, names=(account,)))
    assert leases.is_announced(name, (account,))
    assert leases.turned_off(name, (account,)) == frozenset()
    if account != OTHER and account != "build.ppc64le":
        kind = {"source": "fetch", "publish": "upload"}.get(account, "build")
        control.report(report_of(kind))
        assert not control.is_empty()
    leases.retire(name, (account,))
    leases.close()
    control.close()


@pytest.mark.parametrize("spelled", ["url", "unix_url"])
def test_a_url_with_an_account_reaches_redis_from_every_library(broker: Broker, spelled: str, tmp_path: Path) -> None:
    """The password has characters that a URL has to quote."""
    url = getattr(broker, spelled)(BUILDER)
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": url})
    assert roles.account_of(settings.broker) == BUILDER
    assert broker.passwords[BUILDER] not in str(settings.shown())
    leases = Leases(settings)
    leases.ping()
    leases.close()
    with Connection(settings.broker) as connection:
        connection.default_channel.client.ping()


def test_a_builder_sends_the_message_of_the_upload_in_its_chain(broker: Broker) -> None:
    _send(broker.url(BUILDER), to=queues.behind(queues.PUBLISH))
    with broker.client(ADMIN) as client:
        assert client.delete(queues.behind(queues.PUBLISH)) == 1


def test_a_message_goes_back_to_the_queue_that_it_came_from(broker: Broker) -> None:
    """The sender cannot choose another queue: the broker would deny it to a publisher, which would end."""
    url = broker.url(queues.PUBLISH)
    _send(broker.url(BUILDER), to=queues.behind(queues.PUBLISH))
    with broker.client(ADMIN) as client:
        message = json.loads(client.rpop(queues.behind(queues.PUBLISH)))
        message["properties"]["delivery_info"] = {"exchange": "elsewhere", "routing_key": queues.SOURCE}
        client.lpush(queues.PUBLISH, json.dumps(message))
    with Connection(url) as connection:
        taken = connection.SimpleQueue(queues.PUBLISH).get(timeout=5)
        taken.channel.qos.restore_unacked()
    with broker.client(ADMIN) as client:
        assert client.delete(queues.PUBLISH) == 1
    assert not [denial for denial in broker.denials() if denial[0] == queues.PUBLISH]


def _send(url: str, *, to: str) -> None:
    with Connection(url) as connection, connection.channel() as channel:
        Producer(channel).publish({"x": 1}, exchange="", routing_key=to)


def test_publishers_to_pulp_join_their_publications_without_a_denial(broker: Broker, tmp_path: Path) -> None:
    given = {"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url("publish")}
    together = Together(Settings.from_env(given))
    never = threading.Event()

    def publish(name: str) -> int:
        with together.coming("farm/demo"):
            return together.publish("farm/demo", {name: name}, lambda units: len(units), never)

    before = broker.denials()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(publish, "abcdefgh"))
    rolling_back = Together(Settings.from_env(given | {"FARM_BROKER_URL": broker.url("client")}))
    with rolling_back.locked("farm/demo", never):
        pass
    assert broker.denials() == before


def test_passwords_are_kept_and_only_their_hashes_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    first = CliRunner().invoke(app, ["keys", "acl", "--passwords", str(file)])
    again = CliRunner().invoke(app, ["keys", "acl", "--passwords", str(file)])
    assert first.stdout == again.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for line in file.read_text().splitlines():
        account, password = line.split()
        assert password not in first.stdout
        assert f"user {account} on #{hashlib.sha256(password.encode()).hexdigest()} " in first.stdout
    file.write_text("nonsense\n")
    refused = CliRunner().invoke(app, ["keys", "acl", "--passwords", str(file)])
    assert refused.exit_code == BadRequest.exit_code


def test_there_is_an_administrator_when_one_is_asked_for(broker: Broker) -> None:
    with broker.client(ADMIN) as client:
        assert client.acl_whoami() == ADMIN


def test_the_default_account_is_closed(broker: Broker) -> None:
    with redis.Redis(unix_socket_path=str(broker.unix), protocol=2) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    for password in ("", "default"):
        with (
            redis.Redis(unix_socket_path=str(broker.unix), username="default", password=password, protocol=2) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


def test_a_restart_keeps_transactions_and_the_writes_of_scripts(tmp_path: Path) -> None:
    """Redis 7.0 loads its append-only file as the default account, and checks the account's permissions at EXEC."""
    with broker_with_accounts(tmp_path, "--appendonly", "yes") as broker, broker.client(ADMIN) as client:
        client.mset({"plain": "1"})
        with client.pipeline(transaction=True) as pipe:
            pipe.set("one", "1").set("two", "2").execute()
        client.eval("redis.call('SET', 'three', 3) redis.call('SET', 'four', 4)", 0)
    with broker_with_accounts(tmp_path, "--appendonly", "yes") as broker, broker.client(ADMIN) as client:
        assert {bytes(key) for key in client.scan_iter()} == {b"plain", b"one", b"two", b"three", b"four"}


def test_a_lock_of_a_repository_that_has_no_end_is_taken_over(broker: Broker, tmp_path: Path) -> None:
    given = {"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url("publish")}
    with broker.client(queues.CLIENT) as client:
        for kept_s in (None, 10**6):
            client.set("farm:publishing:farm/demo", "x", ex=kept_s)
            began_at = time.monotonic()
            with Together(Settings.from_env(given)).locked("farm/demo", threading.Event()):
                assert time.monotonic() - began_at < 30


def test_a_lease_as_large_as_redis_takes_is_not_read(broker: Broker, tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url("scheduler")})
    label = "1.build.x86_64.1"
    with broker.client(BUILDER) as client, closing(Leases(settings)) as leases:
        client.hset(f"farm:lease:{label}", mapping={"worker": "build@one", "holder": "x" * 64})
        assert set(leases.holders([label])) == {label}
        client.hset(f"farm:lease:{label}", "worker", "x" * 8 * 10**6)
        assert leases.holders([label]) == {}
        assert not leases.states([label])[label].is_held
        client.delete(f"farm:lease:{label}")


def test_a_worker_makes_up_no_offer_and_no_channel(broker: Broker) -> None:
    """With an offer it would have another host of its arch work on paths of its choice; Redis counts the names of
    channels in no limit of memory."""
    for account in (*queues.WORKER_ROLES, "flower"):
        with broker.client(account) as client:
            for words in (
                ("HSET", f"farm:offer:1.{account}.1", "work", "x"),
                ("SUBSCRIBE", "/0.celery.pidbox-made-up"),
                ("PSUBSCRIBE", "/0.celery.pidbox-made-up"),
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*words)


def test_no_account_may_set_names_of_connections(broker: Broker) -> None:
    """Redis counts them in no limit, and keeps them in its log of slow commands."""
    for account in roles.ACCOUNTS:
        with broker.client(account) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command("CLIENT", "SETNAME", "x")


def test_unread_answers_leave_the_scheduler_its_memory(tmp_path: Path) -> None:
    """With the limits that docs/operating.md asks for, Redis drops the client instead."""
    limits = ("--maxmemory", "96mb", "--maxmemory-clients", "32mb", "--client-query-buffer-limit", "32mb")
    with broker_with_accounts(tmp_path, *limits) as broker, broker.client("scheduler") as scheduler:
        with broker.client(BUILDER) as client:
            client.hset("farm:lease:1.build.x86_64.1", "w", bytes(8 * 2**20))
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", broker.port)) as sender:
                password = broker.passwords[BUILDER]
                sender.sendall(_command("AUTH", BUILDER, password))
                for _ in range(3):
                    with suppress(OSError):
                        sender.sendall(_command("HMGET", "farm:lease:1.build.x86_64.1", *["w"] * 40))
                scheduler.set("farm:scheduler", "x")
                assert scheduler.info("memory")["used_memory"] < 200 * 2**20  # type: ignore[index]


def _command(*words: str) -> bytes:
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)))
