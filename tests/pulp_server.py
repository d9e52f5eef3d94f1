"""A real Pulp for tests and bench, made out of a cache; and settings for a farm that publishes to it."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.pulp.local import LocalPulp, PulpConfig
from farm.config import Settings

# Pulp gives up on a silent worker after this many seconds; its own default of 30 would make tests wait.
_WORKER_TTL_S = 10
#: Tests that speak to Pulp themselves send a password with every request, which costs a third of a second by default.
QUICK_PASSWORDS: Mapping[str, object] = {
    "PASSWORD_HASHERS": [f"django.contrib.auth.hashers.{name}PasswordHasher" for name in ("MD5", "PBKDF2")]
}


@contextmanager
def local_pulp(*, workers: int = 2, settings: Mapping[str, object] | None = None) -> Iterator[LocalPulp]:
    """A new, empty Pulp for the time of the block; `settings` is added to its settings.py. Raises PulpError.

    The first one on a machine installs Pulp and migrates a database, in half a minute; later ones take 5 s.
    """
    # A short path, for the database's socket, which PostgreSQL's own user can enter.
    with TemporaryDirectory(prefix="farm-pulp-") as folder:
        Path(folder).chmod(0o711)
        given = {"WORKER_TTL": _WORKER_TTL_S, **(settings or {})}
        with LocalPulp(PulpConfig(data=Path(folder), cache=pulp_cache(), workers=workers, settings=given)) as pulp:
            yield pulp


def pulp_cache() -> Path:
    """Where Pulp's packages and its empty database are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farm-tests/pulp"


def pulp_settings(pulp: LocalPulp, data: Path, **more: Any) -> Settings:
    """Settings of a farm with its data in `data` that publishes to this Pulp as administrator, below its own prefix.

    `more` are other settings by their field names. All farms of one Pulp share what it says of its API, which takes it
    more than a second to say.
    """
    shared = pulp.home.data / "farm-cache"
    shared.mkdir(exist_ok=True)
    (data / "cache").mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (data / "cache" / "pulp").symlink_to(shared)
    given: dict[str, Any] = {
        "data": data,
        "repositories": "pulp",
        "pulp_url": pulp.url,
        "pulp_username": pulp.username,
        "pulp_password": pulp.password,
        "pulp_prefix": f"t{secrets.token_hex(4)}",
    }
    return Settings(**{**given, **more})
