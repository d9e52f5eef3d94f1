"""Settings come from a mapping, once; unknown and wrong ones are named."""

from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import BadSettings
from farm.up.embedded import Embedded


def test_defaults_stand_inside_the_data_directory() -> None:
    settings = Settings.from_env({"FARM_DATA": "/srv/farm"})
    assert settings.broker == "redis+socket:///srv/farm/redis.sock"
    assert settings.redis == "unix:///srv/farm/redis.sock"
    assert settings.database == "sqlite:////srv/farm/farm.db"
    assert settings.work == Path("/srv/farm/work")


def test_values_have_types() -> None:
    settings = Settings.from_env(
        {"FARM_DATA": "/d", "FARM_LEASE_S": "7", "FARM_KEEP_FAILED": "yes", "FARM_SCRATCH": "/s"}
    )
    assert (settings.lease_s, settings.keep_failed, settings.work) == (7, True, Path("/s"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("FARM_DTAA", "/d"), ("FARM_LEASE_S", "soon"), ("FARM_LEASE_S", "-1"), ("FARM_KEEP_FAILED", "perhaps")],
)
def test_a_wrong_setting_is_named(key: str, value: str) -> None:
    with pytest.raises(BadSettings, match=key):
        Settings.from_env({key: value})


def test_files_of_others_are_left_alone() -> None:
    assert Settings.from_env({"PATH": "/bin", "FARM_DATA": "/d"}).data == Path("/d")


def test_a_data_directory_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(BadSettings, match="too long"):
        Settings.from_env({"FARM_DATA": "/" + "x" * 100})


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://farm:hunter2@db/farm\n")
    settings = Settings.from_env({"FARM_DATA": "/d", "FARM_DATABASE_URL_FILE": str(secret)})
    assert settings.database.endswith("hunter2@db/farm")
    assert "hunter2" not in str(settings.shown())
    with pytest.raises(BadSettings, match="FARM_BROKER_URL_FILE"):
        Settings.from_env({"FARM_DATA": "/d", "FARM_BROKER_URL_FILE": "/does/not/exist"})


def test_logs_go_to_pulp_unless_the_setting_says_otherwise() -> None:
    pulp = {"FARM_DATA": "/d", "FARM_REPOSITORIES": "pulp", "FARM_PULP_URL": "https://pulp.example"}
    assert not Settings.from_env({"FARM_DATA": "/d"}).uploads_logs
    assert Settings.from_env(pulp).uploads_logs
    assert not Settings.from_env({**pulp, "FARM_UPLOAD_LOGS": "0"}).uploads_logs
    assert Settings.from_env({"FARM_DATA": "/d", "FARM_UPLOAD_LOGS": "yes"}).shown()["upload_logs"] == "True"


def test_an_embedded_farms_processes_get_the_same_settings() -> None:
    """Spelled out in their environment; what is off by choice must not come back as a default."""
    given = Settings.from_env(
        {
            "FARM_DATA": "/d",
            "FARM_REPOSITORIES": "pulp",
            "FARM_PULP_URL": "https://pulp.example",
            "FARM_UPLOAD_LOGS": "no",
        }
    )
    env = Embedded(given, say=lambda _: None)._environment("publish")
    assert Settings.from_env(env) == given
