"""The files shipped to run a Pulp beside the farm, as far as they can be checked without one."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.pulp.accounts import Purpose
from deploy.pulp.environment import CONSTRAINTS
from deploy.pulp.errors import PulpError
from deploy.pulp.guard import header_value
from deploy.pulp.home import Home
from deploy.pulp.postgresql import Cluster
from deploy.pulp.processes import Family, Plan, run

_ROOT = Path(__file__).parent.parent.parent
_COMPOSE = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())


def _pinned(name: str) -> str:
    found = re.search(rf"^{name}==(.+)$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert found, f"{name} is not pinned"
    return found[1]


def test_compose_uses_the_pulp_that_is_tested() -> None:
    assert _COMPOSE["services"]["pulp"]["image"] == f"docker.io/pulp/pulp:{_pinned('pulpcore')}"
    assert _pinned("pulp-rpm")


@pytest.mark.parametrize("service", _COMPOSE["services"].values(), ids=list(_COMPOSE["services"]))
def test_compose_services_listen_on_loopback_and_say_when_they_are_well(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert re.fullmatch(r".+:\d+\.\d+(\.\d+)?", service["image"]), "not an exact version"


def test_compose_starts_pulp_only_when_asked_and_names_every_volume() -> None:
    services = _COMPOSE["services"]
    assert services["pulp"]["profiles"] == ["pulp"]
    assert "profiles" not in services["redis"]
    assert {volume.partition(":")[0] for volume in services["pulp"]["volumes"]} == set(_COMPOSE["volumes"])


def test_the_settings_example_is_python_and_holds_no_secret() -> None:
    tree = ast.parse((_ROOT / "deploy/pulp/settings.py.example").read_text())
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    assert not isinstance(values["SECRET_KEY"], ast.Constant)
    assert "read_text" in ast.unparse(values["DATABASES"])


def test_the_publisher_has_no_role_that_reaches_further_than_its_own() -> None:
    for role in Purpose.PUBLISHER.roles:
        assert role.endswith(("_creator", "_uploader")), role
    for role in Purpose.READER.roles:
        assert role.endswith("_viewer"), role


def test_the_documentation_names_every_role() -> None:
    page = (_ROOT / "docs/pulp.md").read_text()
    for role in Purpose.PUBLISHER.roles:
        assert role in page or role.startswith("file.file"), role


def test_the_proxys_header_is_base64() -> None:
    assert header_value("secret") == "c2VjcmV0"


def test_settings_of_the_caller_win_over_those_of_a_local_pulp(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("k")
    settings: dict[str, Any] = {}
    home = Home(data=tmp_path, venv=tmp_path, settings={"MEDIA_ROOT": "/elsewhere", "WORKER_TTL": 5})
    exec(home._settings_py(), settings)
    assert (settings["MEDIA_ROOT"], settings["WORKER_TTL"]) == ("/elsewhere", 5)
    assert settings["CONTENT_ORIGIN"] == f"http://127.0.0.1:{home.ports()[1]}"


def test_ports_are_kept_for_as_long_as_the_folder_lives(tmp_path: Path) -> None:
    first = Home(data=tmp_path, venv=tmp_path, settings={}).ports()
    assert len(set(first)) == 2
    assert Home(data=tmp_path, venv=tmp_path, settings={}).ports() == first


def test_a_socket_path_that_no_kernel_takes_is_refused_in_words(tmp_path: Path) -> None:
    cluster = Cluster(data=tmp_path / "pg", socket=tmp_path / ("x" * 100), log=tmp_path / "log")
    with pytest.raises(PulpError, match="too long for a unix socket"):
        cluster.prepare()


def test_a_process_that_ended_is_named_with_its_last_line_and_its_log(tmp_path: Path) -> None:
    family = Family()
    try:
        family.start(_plan(tmp_path, "echo starting; echo no room >&2; exit 3"))
        family._running["it"][1].wait()
        with pytest.raises(PulpError, match=rf"it ended with 3: no room \(log: {tmp_path}/log\)"):
            family.check()
        with pytest.raises(PulpError, match="it does not run; running are none"):
            family.send("it", 15)  # type: ignore[arg-type]
    finally:
        family.stop(["it"])
        family.close()


def test_stopping_ends_the_children_of_one_that_ignores_it_too(tmp_path: Path) -> None:
    family = Family(stop_within_s=0.2)
    family.start(_plan(tmp_path, "trap '' TERM; sleep 1000 & wait; wait"))
    group = family.pids["it"]
    family.stop(["it"])
    family.close()
    assert not [stat for stat in Path("/proc").glob("[0-9]*/stat") if _group_of(stat) == group]


def test_a_command_that_fails_or_is_not_there_or_takes_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(PulpError, match="failed with code 2:\nno such thing"):
        run(["sh", "-c", "echo no such thing >&2; exit 2"], env={}, cwd=tmp_path, timeout_s=10)
    with pytest.raises(PulpError, match="no-such-command is not installed"):
        run(["no-such-command"], env={}, cwd=tmp_path, timeout_s=10)
    with pytest.raises(PulpError, match=r"took longer than 0\.1 s"):
        run(["sleep", "1000"], env={}, cwd=tmp_path, timeout_s=0.1)
    assert run(["cat"], env={}, cwd=tmp_path, timeout_s=10, stdin="given") == "given"


def _plan(folder: Path, script: str) -> Plan:
    return Plan(name="it", argv=["sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, cwd=folder, log=folder / "log")


def _group_of(stat: Path) -> int:
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return 0
    return 0 if state == "Z" else int(group)
