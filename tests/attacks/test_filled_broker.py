"""An account that fills the broker to its memory limit and leaves: the scheduler makes room again, and goes on."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis

from farm import wire
from farm.broker.control import Control
from farm.config import Settings
from farm.store.store import Store
from tests.attacks.conftest import ADMIN, Broker, broker_with_accounts
from tests.scheduling import scheduling
from tests.waiting import until

EVIL = "build.aarch64"
LIMIT_BYTES = 8 * 2**20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_with_accounts(tmp_path, "--maxmemory", str(LIMIT_BYTES), "--maxmemory-policy", "noeviction") as broker:
        yield broker


def settings_of(broker: Broker, folder: Path, account: str) -> Settings:
    return Settings.from_env({"FARM_DATA": str(folder), "FARM_BROKER_URL": broker.url(account)})


def fill(broker: Broker) -> None:
    """Lists without an end, of attempts that never were, until a client with small buffers is denied one more byte."""
    for size in (2**20, 2**14, 2**10, 2**4):
        for number in range(10**5):
            with broker.client(EVIL) as client, suppress(redis.OutOfMemoryError):
                for _ in range(100):
                    client.lpush(f"farm:wake:{number}{size}.{EVIL}.1", b"x" * size)
                continue
            break


@pytest.mark.parametrize("is_leading", [True, False])
def test_a_scheduler_sweeps_a_full_broker_and_leads(broker: Broker, tmp_path: Path, is_leading: bool) -> None:
    settings = settings_of(broker, tmp_path, "scheduler")
    Store.open(settings.database, create=True).close()
    control = Control(settings_of(broker, tmp_path, EVIL))
    with ExitStack() as stack, broker.client(ADMIN) as admin:
        stack.callback(control.close)
        if is_leading:
            stack.enter_context(scheduling(settings))
            until(lambda: bool(admin.exists("farm:scheduler")), "the scheduler to lead")
        else:
            for number in range(50):
                label = f"{number + 1}.{EVIL}.1"
                notice = wire.Notice(notice=wire.NoticeKind.RESUME, attempt=label, token="t", worker="build@evil")
                admin.lpush(f"control:taken:{EVIL}", wire.encode_notice(notice))
        fill(broker)
        if not is_leading:
            stack.enter_context(scheduling(settings))
        until(lambda: admin.info("memory")["used_memory"] < LIMIT_BYTES / 2, "room in the broker", within_s=30)
        until(lambda: bool(admin.exists("farm:scheduler")), "the scheduler to lead")
        until(lambda: not admin.exists(f"control:taken:{EVIL}", f"control:{EVIL}"), "the notices to be settled")
