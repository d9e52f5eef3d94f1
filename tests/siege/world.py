"""A real farm on several hosts: broker, database, two schedulers, and workers on hosts that are network namespaces.

Owns which processes there are and what they are told; not what is done to them.
"""

import random
import shutil
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.pulp.postgresql import Cluster
from farm.config import Settings
from farm.model.arch import Arch
from farm.queues import CLIENT, PUBLISH, SOURCE, build_queue
from farm.store.store import Store
from tests.siege.accounts import ADMIN, Accounts, make_accounts
from tests.siege.commands import CommandFailed, run
from tests.siege.ground import Ground
from tests.siege.members import Member, Members
from tests.siege.net import CORE_ADDRESS, Network
from tests.siege.shape import DatabaseKind, Role, Shape
from tests.siege.sql import Sql, postgresql, sqlite
from tests.siege.timeline import Timeline

SLOTS = 2
QUEUES = {Role.SOURCE: SOURCE, Role.BUILD: build_queue(Arch.X86_64), Role.PUBLISH: PUBLISH}
#: The evil host's role. No honest worker has it, and no package is built for it, so that the time limits of a siege
#: stay true: a second host of an honest role could take messages of its queue, as the farm allows it to.
EVIL_ROLE = build_queue(Arch.AARCH64)
_SCHEDULER = "scheduler"
_START_WITHIN_S = 90.0
_ANSWER_WITHIN_S = 3.0
_ALL_ROLES = (Role.SOURCE, Role.BUILD, Role.PUBLISH)


class WorldTrouble(Exception):
    """The farm did not come up, so there is nothing to lay siege to."""


class World:
    """Use `close` in the end, whatever happened."""

    def __init__(self, shape: Shape, tag: str, rng: random.Random, distribution: Path, timeline: Timeline) -> None:
        self.shape = shape
        self.timeline = timeline
        self.ground = Ground(tag)
        #: Whether hosts' clocks can be stepped: it takes a C compiler.
        self.has_clocks = False
        self._clock = self.ground.folder / "clock"
        self._preload = self.ground.folder / "clock.so"
        self._distribution = distribution
        self.accounts = Accounts(server="", file=self.ground.folder / "none")
        self.hosts: dict[str, Path] = {}
        #: Hosts that nothing is expected of: cut off, or with a full disk.
        self.ill_hosts: set[str] = set()
        self.members = Members(self.ground, rng, shape.restart_after_s, timeline)
        self._cluster = Cluster(
            data=self.ground.folder / "pg", socket=self.ground.folder / "pgs", log=self.ground.log / "postgresql.log"
        )
        try:
            self.network = Network(tag)
        except BaseException:
            self.ground.close(keep=False)
            raise

    # --- settings of the members --------------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        return self.ground.folder / "redis" / "redis.sock"

    @property
    def store(self) -> Path:
        return self.ground.data / "artifacts"

    @property
    def repositories(self) -> Path:
        return self.ground.data / "repositories"

    @property
    def environment(self) -> dict[str, str]:
        found = {
            "FARM_DATA": str(self.ground.data),
            "FARM_OWNER": "siege",
            "FARM_LEASE_S": str(self.shape.lease_s),
            "FARM_CLAIM_S": str(self.shape.claim_s),
            # The adversary never hurts a step as often as this, so nothing may ever end as the farm's fault.
            "FARM_MAX_TROUBLES": "12",
            # The scratch disks are small, and full disks are among the adversary's means.
            "FARM_DISK_RESERVE_BYTES": "0",
            "FARM_RETRY_DELAY_S": "0.3",
        }
        if self.shape.database is DatabaseKind.POSTGRESQL:
            found["FARM_DATABASE_URL"] = f"postgresql+psycopg://pulp@/farm?host={self._cluster.socket}"
        return found

    @property
    def settings(self) -> Settings:
        """A client's, outside of all namespaces."""
        return Settings.from_env({**self.environment, "FARM_BROKER_URL": self._socket_url(CLIENT)})

    def _socket_url(self, account: str) -> str:
        return f"redis+socket://{self.accounts.user(account)}{self.socket}"

    def _broker(self, account: str) -> dict[str, str]:
        """The setting of a member's broker."""
        return {"FARM_BROKER_URL": f"redis://{self.accounts.user(account)}{CORE_ADDRESS}:6379/0"}

    def sql(self) -> Sql:
        """A connection of the caller's own."""
        if self.shape.database is DatabaseKind.POSTGRESQL:
            return postgresql(self._cluster.socket, "pulp", "farm")
        return sqlite(self.ground.data / "farm.db")

    def redis(self, timeout_s: float = 1.0, account: str = ADMIN) -> "redis.Redis":
        passwords = self.accounts.passwords
        return redis.Redis(
            unix_socket_path=str(self.socket),
            username=account if passwords else None,
            password=passwords.get(account),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # a broker that is down must be noticed
        )

    # --- start --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """All of it. Raises WorldTrouble, naming the logs."""
        self._make_clocks()
        (self.ground.data / "demo").mkdir()
        (self.ground.data / "demo" / "distribution").symlink_to(self._distribution)
        self.ground.mount_store()
        self.accounts = make_accounts(self.ground.folder)
        self._start_redis()
        if self.shape.database is DatabaseKind.POSTGRESQL:
            self._start_postgresql()
        Store.open(self.settings.database, create=True).close()
        for number in (1, 2):
            argv = [sys.executable, "-m", "farm.scheduler"]
            name = f"scheduler{number}"
            env = self._env() | self._broker(_SCHEDULER) | self._with_clock(name)
            self.members.add(Member(name=name, argv=argv, env=env, namespace=self.network.core))
        self.add_host("host1", _ALL_ROLES)
        self.add_host("host2", _ALL_ROLES)
        self.add_host("host3", (Role.BUILD,))
        wanted = {member.worker for member in self.members.workers()}
        self.until(lambda: self.registered() >= wanted, "the workers to register")

    def add_host(self, name: str, roles: tuple[Role, ...]) -> None:
        namespace = self.network.add_host(name)
        scratch = self.hosts[name] = self.ground.mount_scratch(name)
        env = self._env() | {"FARM_SCRATCH": str(scratch)} | self._with_clock(name)
        for role in roles:
            argv = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-n", f"{role}@%h"]
            its_env = env | self._broker(QUEUES[role])
            argv += ["-c", str(SLOTS), "-Q", QUEUES[role], "--without-gossip", "--without-mingle", "-l", "INFO"]
            member = Member(name=f"{name}.{role}", argv=argv, env=its_env, namespace=namespace, host=name, role=role)
            self.members.add(member)

    def _make_clocks(self) -> None:
        self._clock.mkdir()
        with suppress(CommandFailed):
            run("cc", "-O2", "-shared", "-fPIC", "-o", self._preload, Path(__file__).with_name("clock.c"))
            self.has_clocks = True

    def _with_clock(self, name: str) -> dict[str, str]:
        """The environment of what has a clock of its own."""
        if not self.has_clocks:
            return {}
        self.set_clock(name, 0)
        return {"LD_PRELOAD": str(self._preload), "SIEGE_CLOCK": str(self._clock / name)}

    def set_clock(self, name: str, step_s: int) -> None:
        """How many seconds the time of day of a host, or of a scheduler, is ahead of the others'."""
        path = self._clock / name
        with path.open("r+b" if path.exists() else "wb") as file:  # in place: it is mapped
            file.write(struct.pack("q", step_s))

    def _start_redis(self) -> None:
        folder = self.socket.parent
        folder.mkdir()
        # The page cache outlives the process, so nothing need be synchronised for a server that is only killed.
        options = {"bind": CORE_ADDRESS, "port": "6379", "unixsocket": str(self.socket), "protected-mode": "no"}
        options |= {"appendonly": "yes", "appendfsync": "no", "save": "", "dir": str(folder), "daemonize": "no"}
        options |= {"maxmemory-policy": "noeviction"} | self.accounts.options
        argv = [self.accounts.server, *(word for key, value in options.items() for word in (f"--{key}", value))]
        self.members.add(Member(name="redis", argv=argv, env=self._env(), namespace=self.network.core))
        self.until(self.redis_answers, "the broker to answer")

    def empty_redis(self) -> None:
        """Between two lives of it."""
        shutil.rmtree(self.socket.parent / "appendonlydir", ignore_errors=True)

    def _start_postgresql(self) -> None:
        self._cluster.prepare()
        self._cluster.initialise()
        plan = self._cluster.plan()
        # The page cache outlives the server, what it has not written yet does not.
        argv = [*plan.argv, "-c", "synchronous_commit=on"]
        member = Member(
            name="postgresql", argv=argv, env=plan.env, namespace=self.network.core, cwd=self._cluster.socket
        )
        self.members.add(member)
        self.until(self._cluster.answers, "the database to answer")
        self._cluster.sql("CREATE DATABASE farm", database="postgres")

    def _env(self) -> dict[str, str]:
        base = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        # The code that this siege came with, wherever the environment's installed one is.
        base["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        return {**base, "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1", **self.environment}

    # --- look ---------------------------------------------------------------------------------------------------

    def redis_answers(self) -> bool:
        try:
            with self.redis() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def registered(self) -> set[str]:
        """Names of the honest workers that the broker knows of."""
        with self.redis() as client:
            keys = [key.decode().split(":", 3) for key in client.scan_iter("farm:worker:*")]
        return {name for _, _, role, name in keys if role != EVIL_ROLE}

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Raises WorldTrouble when it is not so in time."""
        deadline = time.monotonic() + _START_WITHIN_S
        while not is_so():
            if time.monotonic() > deadline:
                raise WorldTrouble(f"waited {_START_WITHIN_S:g} s for {what}; the logs are in {self.ground.log}")
            time.sleep(0.05)

    def leader(self) -> Member | None:
        """The scheduler that last said that it schedules."""
        leading = [member for member in self.members.schedulers() if self.leads(member)]
        return leading[0] if len(leading) == 1 else None

    def leads(self, member: Member) -> bool:
        """Whether this scheduler lives, and thinks that it leads."""
        return member.is_running and _leads(self._log(member).read_bytes()[member.logged_bytes :])

    def _log(self, member: Member) -> Path:
        return self.ground.log / f"{member.name}.log"

    def is_well(self, member: Member) -> bool:
        """Whether a worker can be expected to take work."""
        return member.is_ready and member.host not in self.ill_hosts

    def attempts_in(self, host: str) -> Mapping[int, str]:
        """From the logs in the host's scratch: which pool process (by id) runs which attempt."""
        found = {}
        for folder in self.hosts[host].glob("step-*"):
            try:
                head = (folder / "log").read_bytes()[:1000].decode(errors="replace")
            except OSError:
                continue
            label = head.partition("attempt ")[2].split()
            if label:
                found[int(folder.name.split("-")[2])] = label[0]
        return found

    def active(self) -> dict[str, list[str]]:
        """The tasks that each worker that answers believes its pool runs: the only sign of a process that hangs."""
        app = Celery("siege", broker=self._socket_url(ADMIN), set_as_current=False)
        try:
            with app.connection_for_write() as connection:
                asked = app.control.inspect(timeout=_ANSWER_WITHIN_S, connection=connection)
                answers = asked.active() or {}
        except OperationalError:
            return {}
        finally:
            app.close()
        return {str(name): [str(task["id"]) for task in tasks] for name, tasks in answers.items()}

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self, *, keep: bool) -> None:
        self.ground.kill_all()
        self.members.reap()
        self.ground.close(keep=keep)
        self.network.close()


def _leads(log: bytes) -> bool:
    """By the last of what it said of itself since it was started."""
    lines = [line for line in log.splitlines() if b"action=st" in line]
    return bool(lines) and lines[-1].rstrip().endswith(b"action=start")
