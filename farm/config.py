"""The farm's settings: read from the environment once, at start, into one frozen value.

Unknown `FARM_*` keys are errors. A secret may be given as the path of a file: `FARM_BROKER_URL_FILE` for
`FARM_BROKER_URL`.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from farm.errors import BadSettings

_SECRETS = ("broker_url", "database_url", "pulp_password")
DIRECTORY, PULP = "directory", "pulp"
_BACKENDS = (DIRECTORY, PULP)
_PULP_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
#: The least and the greatest `first_root_id`. Below are the ids that systems give to users and services, the root's 0
#: among them; above, the 196,608 ids of build roots would reach those of the user `nobody` and of "no id".
_FIRST_ROOT_ID = (100_000, 2**32 - 2 - 196_608)
_SOCKET_PATH_MAX = 100  # the kernel's limit is 108 bytes, with the final NUL


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`data` holds everything an embedded farm keeps. Empty URLs stand for the embedded defaults inside it.

    `keep_failed` keeps the work folders of attempts that did not succeed, for a person to look at.
    `try_warm_s` is how long `farm try` leaves a process for the next one.
    `scratch` is the folder of build roots while they are used; it should be on the file system of `data`.

    `rate_requests` is how many requests a second an account may send to the servers, and `rate_enqueues` how many
    builds it may enqueue there in a minute; 0 sets no limit.

    `allow_networks` are networks that `fetch` may connect to although they are not public, such as `10.0.0.0/8`, with
    commas between them; a target can allow more. `ssh_key` is the private key that git gets for ssh, `ssh_known_hosts`
    the file of host keys besides the system's own.

    `url` is the address of a farm's server, for commands that are to use it instead of the database, with the token of
    `token_file`, or else of `farm login`.

    `flower_url` is the address under which people reach Flower; the pages link each running step to it.

    `server_port` is the port of the HTTP server that `farm up` starts on 127.0.0.1. `server_hosts` are the
    comma-separated names, besides those of the loopback, by which clients reach a server. With `server_anonymous`, a
    client without a token may read. `server_proxies` are the comma-separated addresses of proxies in front of a server,
    which believes their `X-Forwarded-For` and `X-Forwarded-Proto`.

    `upload_logs` publishes the logs and records of every build in the back end too, those of failed builds included; if
    it is not set, it does so with Pulp.

    `keep_artifacts_days` is for how many days after a build's end `farm gc` keeps the build's artifacts, 0 for always;
    `cache_bytes` is the size to which it reduces the caches of a host.

    `keep_audit_days` is for how many days `farm gc` keeps the records of the audit log, 0 for always.

    `disk_reserve_bytes` is the space that a running step is expected to take on the scratch disk of its host: a worker
    takes no step if less is left beside the running steps. 0 turns that off.

    `first_root_id` is the first of the host's 196,608 user and group ids that the farm has for its build roots; no
    other user may have them. `unconfined` are the comma-separated names of targets that may be built on this host with
    the host's own root in their build roots; `*` stands for all.

    `repository_metadata_bytes` is how much metadata, uncompressed, a repository may have for packages to be added.

    `repositories` is the back end: `directory` or `pulp`. The `pulp_*` settings say how to reach Pulp: `pulp_url` is
    the API's base URL without a path; a user name and password, or a client certificate (`pulp_cert` and, when it is
    in a file of its own, `pulp_key`); `pulp_ca` a CA bundle; `pulp_content_url` where clients find its
    content, if Pulp reports another address; `pulp_content_guard` the href of
    the guard that new distributions get; `pulp_prefix` what the names and base paths of the
    farm's repositories begin with; `pulp_request_s` the longest time that one request may take without an answer,
    `pulp_retry_s` how long a request that found no Pulp is tried again, `pulp_task_s` the deadline of one task;
    `pulp_uploads` how many files one publisher sends at a time; files over `pulp_chunk_bytes` go up in chunks.
    """

    data: Path
    broker_url: str = ""
    database_url: str = ""
    targets: Path | None = None
    owner: str = ""
    log_level: str = "INFO"
    keep_failed: bool = False
    try_warm_s: int = 600
    extensions: str = ""
    scratch: Path | None = None
    first_root_id: int = 1_900_000_000
    unconfined: str = ""
    lease_s: int = 30
    claim_s: int = 60
    max_troubles: int = 3
    max_deaths: int = 3
    retry_delay_s: float = 5.0
    flower_port: int = 5555
    flower_url: str = ""
    url: str = ""
    token_file: Path | None = None
    server_port: int = 8780
    server_hosts: str = ""
    server_anonymous: bool = False
    server_proxies: str = ""
    rate_requests: int = 100
    rate_enqueues: int = 10_000
    allow_networks: str = ""
    ssh_key: Path | None = None
    ssh_known_hosts: Path | None = None
    repositories: str = DIRECTORY
    upload_logs: bool | None = None
    keep_artifacts_days: int = 90
    keep_audit_days: int = 0
    cache_bytes: int = 50 * 2**30
    disk_reserve_bytes: int = 2**30
    repository_metadata_bytes: int = 2 * 2**30
    pulp_url: str = ""
    pulp_username: str = ""
    pulp_password: str = ""
    pulp_cert: Path | None = None
    pulp_key: Path | None = None
    pulp_ca: Path | None = None
    pulp_domain: str = "default"
    pulp_content_url: str = ""
    pulp_content_guard: str = ""
    pulp_prefix: str = "farm"
    pulp_request_s: float = 60.0
    pulp_retry_s: float = 60.0
    pulp_task_s: float = 1800.0
    pulp_uploads: int = 4
    pulp_chunk_bytes: int = 8 * 2**20

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """From a mapping of environment variables; the process's own when None.

        Raises BadSettings, naming the variable, for an unknown key or a value of the wrong type.
        """
        env = _environment(env)
        known = {f"FARM_{field.name.upper()}": field for field in fields(cls)}
        secrets = {f"FARM_{name.upper()}_FILE": name for name in _SECRETS}
        values: dict[str, object] = {}
        for key, text in env.items():
            if not key.startswith("FARM_") or key.startswith("FARM_TEST_"):
                continue
            if key in secrets:
                values[secrets[key]] = _read_secret(key, text)
            elif key in known:
                values[known[key].name] = _parse(key, text, known[key].type)
            else:
                raise BadSettings(f"{key} is not a setting; known are {', '.join(sorted(known))}")
        values.setdefault("data", _default_data(env))
        return cls(**values)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", self.data.absolute())
        if not self.broker_url and len(str(self.socket)) > _SOCKET_PATH_MAX:
            raise BadSettings(f"FARM_DATA {str(self.data)!r} is too long for a unix socket; use a shorter path")
        least, most = _FIRST_ROOT_ID
        if not least <= self.first_root_id <= most:
            raise BadSettings(
                f"FARM_FIRST_ROOT_ID={self.first_root_id} is not from {least} to {most}: no id of a build root may be "
                "one of the host's own users"
            )
        for network in self.networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise BadSettings(f"FARM_ALLOW_NETWORKS: {error}; write 10.0.0.0/8 or fd00::/8") from error
        for address in self.proxies:
            try:
                ipaddress.ip_network(address)
            except ValueError as error:
                raise BadSettings(f"FARM_SERVER_PROXIES: {error}; write 127.0.0.1 or 10.0.0.0/8") from error
        if self.flower_url and urlsplit(self.flower_url).scheme not in ("http", "https"):
            raise BadSettings(
                f"FARM_FLOWER_URL={self.flower_url!r} is not an http or https URL; correct it or unset it"
            )
        if self.repositories not in _BACKENDS:
            raise BadSettings(f"FARM_REPOSITORIES={self.repositories!r} is not one of {', '.join(_BACKENDS)}")
        if self.repositories == PULP:
            self._check_pulp()

    def _check_pulp(self) -> None:
        if urlsplit(self.pulp_url).scheme not in ("http", "https"):
            raise BadSettings(
                f"FARM_REPOSITORIES=pulp needs FARM_PULP_URL, an http or https URL, not {self.pulp_url!r}"
            )
        if urlsplit(self.pulp_url).path.strip("/") or urlsplit(self.pulp_url).query:
            raise BadSettings(f"FARM_PULP_URL={self.pulp_url!r} is to end after the host and its port, without a path")
        if not _PULP_PREFIX.fullmatch(self.pulp_prefix):
            raise BadSettings(f"FARM_PULP_PREFIX={self.pulp_prefix!r} may have letters, digits, '.', '_', '-' and '/'")
        if self.pulp_key is not None and self.pulp_cert is None:
            raise BadSettings("FARM_PULP_KEY is set without FARM_PULP_CERT; name the certificate too")
        if bool(self.pulp_username) != bool(self.pulp_password):
            raise BadSettings("FARM_PULP_USERNAME and FARM_PULP_PASSWORD (or FARM_PULP_PASSWORD_FILE) go together")

    @property
    def unconfined_targets(self) -> frozenset[str]:
        return frozenset(name for one in self.unconfined.split(",") if (name := one.strip()))

    @property
    def server_names(self) -> tuple[str, ...]:
        """`server_hosts`, one by one."""
        return tuple(name for one in self.server_hosts.split(",") if (name := one.strip()))

    @property
    def proxies(self) -> tuple[str, ...]:
        """`server_proxies`, one by one."""
        return tuple(address for one in self.server_proxies.split(",") if (address := one.strip()))

    @property
    def uploads_logs(self) -> bool:
        """`upload_logs`, or its default if it is not set."""
        return self.repositories == PULP if self.upload_logs is None else self.upload_logs

    @property
    def networks(self) -> tuple[str, ...]:
        """`allow_networks`, one by one."""
        return tuple(word for word in re.split(r"[,\s]+", self.allow_networks) if word)

    @property
    def socket(self) -> Path:
        """The embedded broker's unix socket."""
        return self.data / "redis.sock"

    @property
    def broker(self) -> str:
        return self.broker_url or f"redis+socket://{self.socket}"

    @property
    def redis(self) -> str:
        """The same server as `broker`, spelled for redis-py."""
        return self.broker.replace("redis+socket://", "unix://", 1)

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data / 'farm.db'}"

    @property
    def artifacts(self) -> Path:
        return self.data / "artifacts"

    @property
    def repositories_dir(self) -> Path:
        """Where the `directory` back end keeps them."""
        return self.data / "repositories"

    @property
    def cache(self) -> Path:
        """Git mirrors, downloads, package caches: may be deleted while nothing runs."""
        return self.data / "cache"

    @property
    def templates(self) -> Path:
        return self.data / "templates"

    @property
    def work(self) -> Path:
        """Work folders of running attempts; swept when a worker starts."""
        return self.scratch or self.data / "work"

    def shown(self) -> dict[str, str]:
        """Effective settings for people, secrets masked."""
        shown = {field.name: str(getattr(self, field.name) or "") for field in fields(self)}
        shown["broker_url"] = _mask(self.broker)
        shown["database_url"] = _mask(self.database)
        shown["upload_logs"] = str(self.uploads_logs)
        shown["pulp_url"] = _mask(self.pulp_url)
        shown["pulp_password"] = "***" if self.pulp_password else ""
        return shown


def origins(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting comes from, by its name: a variable, a file that a variable names, or "default"."""
    env = _environment(env)
    found = {}
    for field in fields(Settings):
        key = f"FARM_{field.name.upper()}"
        found[field.name] = key if key in env else f"{key}_FILE" if f"{key}_FILE" in env else "default"
    return found


def _environment(env: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if env is None else env  # noqa: TID251 - the one place that reads it


def extension_names() -> tuple[str, ...]:
    """The modules that FARM_EXTENSIONS names. Asked for before there are settings: while a module is imported."""
    names = _environment(None).get("FARM_EXTENSIONS", "")
    return tuple(name for part in names.split(",") if (name := part.strip()))


def _parse(key: str, text: str, kind: object) -> object:
    try:
        if kind in (Path, Path | None):
            return Path(text).expanduser()
        if kind in (bool, bool | None):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}[
                text.lower()
            ]
        if kind in (int, float):
            number = kind(text)
            if number < 0:
                raise ValueError("negative")
            return number
    except (ValueError, KeyError) as error:
        wanted = getattr(kind, "__name__", kind)
        raise BadSettings(f"{key}={text!r} is not a {wanted}; correct it or unset it") from error
    return text


def _read_secret(key: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise BadSettings(f"{key}={path!r} cannot be read: {error.strerror}") from error


def _default_data(env: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/farm")
    return Path(env.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "farm"


def _mask(url: str) -> str:
    parts = urlsplit(url)
    if not parts.password:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{parts.username or ''}:***@{host}", parts.path, parts.query, parts.fragment))
