"""The environment of each process of an embedded farm: the settings of its role, and little else.

Owns the table of roles and settings. A process gets no setting that its role does not need, so that a recipe, or a hole
in Flower, finds no secret of another role.
"""

from collections.abc import Mapping
from dataclasses import fields

from farm.config import Settings

_ALL = tuple(field.name for field in fields(Settings))
_PULP = tuple(name for name in _ALL if name.startswith("pulp_"))
_PUBLISHING = ("repositories", "upload_logs", *_PULP)
_EVERY = ("data", "broker_url", "log_level", "extensions")
_WORKER = (
    *(*_EVERY, "targets", "keep_failed", "scratch", "lease_s", "claim_s"),
    *("first_root_id", "unconfined", "allow_networks", "disk_reserve_bytes"),
)

#: The settings that a process is given, by its name.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "redis": (),
    "scheduler": (
        *(*_EVERY, "database_url", "targets", "lease_s", "claim_s"),
        *("max_troubles", "max_deaths", "retry_delay_s", "scratch", "allow_networks"),
        *_PUBLISHING,
    ),
    "source": (*_WORKER, "ssh_key", "ssh_known_hosts"),
    "build": _WORKER,
    "publish": (*_WORKER, *_PUBLISHING, "repository_metadata_bytes"),
    "flower": _EVERY,
    "server": (
        *(*_EVERY, "database_url", "targets", "keep_audit_days"),
        *("server_hosts", "server_anonymous", "server_proxies", "rate_requests", "rate_enqueues"),
        "flower_url",
        *_PUBLISHING,
    ),
    "commands": ("data",),  # a command brings its own
}

_SYSTEM = ("PATH", "HOME", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
#: Proxies, which may have a password, and certificates: for processes that use servers other than the broker.
_NETWORK = (
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
#: libpq takes parts that the URL of the database lacks from variables with this prefix, the password too.
_LIBPQ = "PG"


def environment_of(name: str, settings: Settings, caller: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the process `name`; `caller` is the environment of the process that starts it."""
    given = {f"FARM_{key.upper()}": getattr(settings, key) for key in SETTINGS[name]}
    texts = {
        key: str(int(value) if isinstance(value, bool) else value)
        for key, value in given.items()
        if value or value == 0
    }
    kept = {key: value for key, value in caller.items() if _is_for(name, key)}
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1", **texts}


def _is_for(name: str, key: str) -> bool:
    return (
        key in _SYSTEM
        or (key in _NETWORK and name not in ("redis", "flower", "commands"))
        or (key.startswith(_LIBPQ) and name in ("scheduler", "server"))
    )
