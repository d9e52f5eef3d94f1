"""One local Pulp's folder: makes its settings, secrets, ports and database.

Owns the files. Starts PostgreSQL only to make the migrated template from which new databases are copied.
"""

import base64
import hashlib
import json
import random
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.stamp import is_current, locked, replacing
from deploy.pulp import environment, postgresql
from deploy.pulp.environment import Say
from deploy.pulp.errors import PulpError
from deploy.pulp.postgresql import Cluster
from deploy.pulp.processes import Family, run, until

ADMIN = "admin"
_FOLDERS = ("media", "work", "uploads", "static", "log")
_PASSWORD_BYTES = 18
_MIGRATE_WITHIN_S = 600.0
_POSTGRESQL_WITHIN_S = 60.0
_COPY_WITHIN_S = 120.0
# A request needs no new process of PostgreSQL. Django replaces connections that were lost with the server.
_CONNECTIONS = {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
# Below the ports that the kernel gives to outgoing connections, one of which could take Pulp's port while it is down.
_PORTS = (20000, 32000)


@dataclass(frozen=True, kw_only=True)
class Home:
    """`venv` is Pulp's own environment; `settings` are added to those of settings.py, and override them."""

    data: Path
    venv: Path
    settings: Mapping[str, object]

    @property
    def cluster(self) -> Cluster:
        return Cluster(data=self.data / "pg", socket=self.data / "run", log=self.data / "log/postgresql.log")

    @property
    def password_file(self) -> Path:
        return self.data / "admin-password"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of Pulp's commands; it has no variables of the caller."""
        return {
            "PATH": f"{self.venv}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.data),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": str(self.data / "work"),
            "PYTHONUNBUFFERED": "1",
            "PULP_SETTINGS": str(self.data / "settings.py"),
            "DJANGO_SETTINGS_MODULE": "pulpcore.app.settings",
        }

    def prepare(self) -> None:
        """Make everything but the database. Safe to repeat: existing files stay."""
        self.data.mkdir(parents=True, exist_ok=True)
        for name in _FOLDERS:
            (self.data / name).mkdir(exist_ok=True)
        self._keep("secret-key", secrets.token_urlsafe(48))
        self._keep("database-key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        self._keep(self.password_file.name, secrets.token_urlsafe(_PASSWORD_BYTES))
        self._write_private("settings.py", self._settings_py())
        self.cluster.prepare()

    def ports(self) -> tuple[int, int]:
        """The ports of the API and of the content app. They stay as long as the folder, since the farm keeps Pulp's
        URLs.
        """
        kept = self.data / "ports.json"
        if not kept.exists():
            kept.write_text(json.dumps(_free_ports(2)))
        api, content = json.loads(kept.read_text())
        return int(api), int(content)

    def manage(self, *words: str, timeout_s: float = _MIGRATE_WITHIN_S) -> str:
        """The output of a command of pulpcore-manager; needs the database. Raises PulpError."""
        argv = [str(self.venv / "bin/python"), str(self.venv / "bin/pulpcore-manager"), *words]
        return run(argv, env=self.environment, cwd=self.data / "work", timeout_s=timeout_s)

    def set_admin_password(self) -> None:
        """The database's user gets the password of the file, in Django's own spelling of a hash."""
        password, salt, rounds = self.password_file.read_text().strip(), secrets.token_hex(11), 1_000_000
        hashed = base64.b64encode(hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), rounds)).decode()
        stored = f"pbkdf2_sha256${rounds}${salt}${hashed}"
        self.cluster.sql(f"UPDATE auth_user SET password = '{stored}' WHERE username = '{ADMIN}'")

    def _keep(self, name: str, text: str) -> None:
        if not (self.data / name).exists():
            self._write_private(name, text)

    def _write_private(self, name: str, text: str) -> None:
        path = self.data / name
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(text)

    def _settings_py(self) -> str:
        database = {"ENGINE": "django.db.backends.postgresql", "NAME": "pulp", "USER": "pulp"}
        values: dict[str, object] = {
            "SECRET_KEY": (self.data / "secret-key").read_text(),
            "DB_ENCRYPTION_KEY": str(self.data / "database-key"),
            "DATABASES": {"default": {**database, "HOST": str(self.cluster.socket), **_CONNECTIONS}},
            "CONTENT_ORIGIN": f"http://127.0.0.1:{self.ports()[1]}",
            "MEDIA_ROOT": str(self.data / "media"),
            "WORKING_DIRECTORY": str(self.data / "work"),
            "FILE_UPLOAD_TEMP_DIR": str(self.data / "uploads"),
            "STATIC_ROOT": str(self.data / "static"),
            "CACHE_ENABLED": False,
            "ANALYTICS": False,
            **self.settings,
        }
        return "".join(f"{name} = {value!r}\n" for name, value in values.items())


def make(data: Path, cache: Path, settings: Mapping[str, object], *, say: Say) -> Home:
    """A folder whose Pulp only has to be started: a new one, or that of an earlier run. Raises PulpError."""
    home = Home(data=data, venv=environment.make(cache, say=say), settings=settings)
    key = _key()
    made_for = data / "database-version"
    if not (data / "pg/PG_VERSION").exists():
        data.mkdir(parents=True, exist_ok=True)
        _copy(_template(cache, say=say), data / "pg")
        made_for.write_text(key)
    home.prepare()
    if made_for.read_text() != key:
        _upgrade(home, say=say)
        made_for.write_text(key)
    return home


def _key() -> str:
    return f"{environment.identity()}-{postgresql.version()}"


def _upgrade(home: Home, *, say: Say) -> None:
    made_by = (home.data / "pg/PG_VERSION").read_text().strip()
    if made_by != postgresql.version():
        raise PulpError(
            f"{home.data}/pg was made by PostgreSQL {made_by} and this host has {postgresql.version()}; upgrade it "
            f"with pg_upgrade, or delete {home.data} and publish again"
        )
    say("upgrading Pulp's database")
    with _running(home):
        home.manage("migrate", "--noinput")


def _template(cache: Path, *, say: Say) -> Path:
    """A stopped cluster with a migrated database and an admin with an unknown password."""
    key = _key()
    folder = cache / key / "database"
    with locked(folder.parent):
        if not is_current(folder, key):
            say("making Pulp's empty database, once: 20 to 30 s")
            venv = environment.make(cache, say=say)
            # PostgreSQL's user could not enter a cache below root's home.
            with replacing(folder, key) as fresh, tempfile.TemporaryDirectory(prefix="farm-pulp-") as temporary:
                Path(temporary).chmod(0o711)
                _copy(_migrated(Path(temporary), venv), fresh / "pg")
    return folder / "pg"


def _migrated(data: Path, venv: Path) -> Path:
    home = Home(data=data, venv=venv, settings={})
    home.prepare()
    home.cluster.initialise()
    with _running(home):
        home.cluster.sql("CREATE DATABASE pulp", database="postgres")
        home.manage("migrate", "--noinput")
        home.manage("reset-admin-password", "--password", secrets.token_urlsafe(_PASSWORD_BYTES))
    return home.cluster.data


@contextmanager
def _running(home: Home) -> Iterator[None]:
    """PostgreSQL alone, for the time of the block."""
    family = Family()
    try:
        start_postgresql(family, home.cluster)
        yield
    finally:
        family.stop([postgresql.NAME])
        family.close()


def start_postgresql(family: Family, cluster: Cluster) -> None:
    """Start it, and wait until it answers. Raises PulpError."""
    family.start(cluster.plan())

    def answers() -> bool:
        family.check(postgresql.NAME)
        return cluster.answers()

    until(answers, _POSTGRESQL_WITHIN_S, f"PostgreSQL to answer; its log is {cluster.log}")


def _copy(source: Path, destination: Path) -> None:
    shutil.rmtree(destination, ignore_errors=True)
    argv = ["cp", "--archive", "--reflink=auto", "--", str(source), str(destination)]
    run(argv, env={}, cwd=Path("/"), timeout_s=_COPY_WITHIN_S)


def _free_ports(count: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.randint(*_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in chosen:
            chosen.append(port)
    return chosen
