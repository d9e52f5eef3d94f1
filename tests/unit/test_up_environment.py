"""A process of an embedded farm finds the secrets of its own role in its environment, and of no other."""

from dataclasses import fields

import pytest

from farm.config import Settings
from farm.up.embedded import Embedded
from farm.up.environment import SETTINGS, environment_of

SETTINGS_OF_A_FARM = Settings.from_env(
    {
        "FARM_DATA": "/d",
        "FARM_BROKER_URL": "redis://farm:of-the-broker@broker/0",
        "FARM_DATABASE_URL": "postgresql+psycopg://farm:of-the-database@db/farm",
        "FARM_SSH_KEY": "/of-the-forge",
        "FARM_REPOSITORIES": "pulp",
        "FARM_PULP_URL": "https://in-the-url@pulp.example",
        "FARM_PULP_USERNAME": "farm",
        "FARM_PULP_PASSWORD": "of-pulp",
        "FARM_PULP_CERT": "/of-the-client",
        "FARM_PULP_KEY": "/of-the-client.key",
    }
)
CALLER = {
    "PATH": "/bin",
    "FARM_DATABASE_URL": "postgresql+psycopg://farm:of-the-database@db/farm",
    "FARM_PULP_PASSWORD_FILE": "/of-pulp",
    "PGPASSWORD": "of-libpq",
    "https_proxy": "http://me:of-the-proxy@proxy:3128",
    "AWS_SECRET_ACCESS_KEY": "of-somebody",
}
#: A word of each secret, and who may have it.
WHO = {
    "of-the-broker": {"scheduler", "source", "build", "publish", "flower", "server"},
    "of-the-database": {"scheduler", "server"},
    "of-libpq": {"scheduler", "server"},
    "of-the-forge": {"source"},
    "in-the-url": {"scheduler", "publish", "server"},
    "of-pulp": {"scheduler", "publish", "server"},
    "of-the-client": {"scheduler", "publish", "server"},
    "of-the-proxy": {"scheduler", "source", "build", "publish", "server"},
    "of-somebody": set(),
}


@pytest.mark.parametrize("word", WHO)
def test_a_secret_reaches_the_processes_whose_role_needs_it(word: str) -> None:
    environments = {name: environment_of(name, SETTINGS_OF_A_FARM, CALLER) for name in SETTINGS}
    assert {name for name, env in environments.items() if word in str(env)} == WHO[word]


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "redis"])
def test_a_process_understands_what_it_is_given(name: str) -> None:
    given = Settings.from_env(Embedded(SETTINGS_OF_A_FARM, say=lambda _: None)._environment(name))
    assert {key: getattr(given, key) for key in SETTINGS[name]} == {
        key: getattr(SETTINGS_OF_A_FARM, key) for key in SETTINGS[name]
    }


def test_each_setting_reaches_a_process_or_is_for_commands_alone() -> None:
    given = {key for keys in SETTINGS.values() for key in keys}
    assert {field.name for field in fields(Settings)} - given == {
        "owner",
        "flower_port",
        "server_port",
        "url",
        "token_file",
        "keep_artifacts_days",
        "cache_bytes",
        "try_warm_s",
    }


def test_the_server_gets_its_settings() -> None:
    """The port alone is an argument."""
    own = {one.name for one in fields(Settings) if one.name.startswith(("server_", "rate_"))} - {"server_port"}
    assert own <= set(SETTINGS["server"])
