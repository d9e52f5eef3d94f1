"""The local Pulp that tests, demo and bench run on: it starts, survives what tests do to it, and leaves nothing."""

import base64
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest
from plumbum import local

from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp
from deploy.pulp.processes import run
from tests.pulp_server import local_pulp, pulp_cache
from tests.waiting import until

_ROOT = Path(__file__).parent.parent.parent
_WITHIN_S = 60.0

pytestmark = pytest.mark.live


def test_answers_its_administrator_alone(pulp: LocalPulp) -> None:
    users = f"{pulp.url}/pulp/api/v3/users/"
    assert httpx.get(users, auth=(pulp.username, pulp.password)).json()["count"] >= 1
    assert httpx.get(users, auth=(pulp.username, "wrong")).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.get(users).status_code == httpx.codes.UNAUTHORIZED


def test_keeps_its_secrets_from_other_users(pulp: LocalPulp) -> None:
    for name in ("admin-password", "secret-key", "database-key", "settings.py"):
        assert (pulp.home.data / name).stat().st_mode & 0o077 == 0
    assert (pulp.home.data / "run").stat().st_mode & 0o077 == 0


def test_the_manager_s_commands_run(pulp: LocalPulp) -> None:
    assert "pulpcore" in pulp.manage("showmigrations", "--help")
    with pytest.raises(PulpError, match="no-such-command"):
        pulp.manage("no-such-command")


def test_pulp_knows_every_setting_of_the_production_example(pulp: LocalPulp, tmp_path: Path) -> None:
    for name in ("secret-key", "database-password"):
        (tmp_path / name).write_text("x" * 50)
    (tmp_path / "database-key").write_bytes(base64.b64encode(bytes(range(224, 256))))  # with + and /, as openssl's
    text = (_ROOT / "deploy/pulp/settings.py.example").read_text().replace("/etc/pulp/secrets", str(tmp_path))
    settings = tmp_path / "settings.py"
    settings.write_text(text)
    argv = [str(pulp.home.venv / "bin/python"), str(pulp.home.venv / "bin/pulpcore-manager"), "diffsettings", "--all"]
    known = run(argv, env=pulp.home.environment, cwd=tmp_path, timeout_s=60)
    used = run(argv, env={**pulp.home.environment, "PULP_SETTINGS": str(settings)}, cwd=tmp_path, timeout_s=60)
    assert "packages.example.org" in used
    for name in re.findall(r"^([A-Z]\w+) =", text, re.MULTILINE):
        assert re.search(rf"^(### )?{name} =", known, re.MULTILINE), f"{name} is no setting of Pulp's"


@pytest.mark.parametrize("name", ["api", "content", "worker-1"])
def test_comes_back_after_the_kill_of(pulp: LocalPulp, name: str) -> None:
    before = pulp.processes[name]
    pulp.kill(name)
    assert name not in pulp.processes
    assert not pulp.is_ready()
    pulp.start_one(name)
    assert pulp.processes[name] != before
    pulp.wait_ready()


def test_comes_back_after_its_database_was_killed(pulp: LocalPulp) -> None:
    pulp.kill("postgresql")
    pulp.revive()
    assert httpx.get(f"{pulp.url}/pulp/api/v3/status/").json()["database_connection"]["connected"]


def test_can_be_held_and_let_go(pulp: LocalPulp) -> None:
    pulp.kill("content", signal.SIGSTOP)
    with pytest.raises(httpx.TimeoutException):
        httpx.get(pulp.content_url, timeout=0.2)
    pulp.kill("content", signal.SIGCONT)
    pulp.wait_ready()


def test_a_stopped_one_leaves_no_process_and_starts_again_where_it_was() -> None:
    with local_pulp(workers=1, settings={"TASK_GRACE_INTERVAL": 5}) as pulp:
        data, url, password = pulp.home.data, pulp.url, pulp.password
        assert _inside(data)
        pulp.stop()
        assert not _inside(data)
        pulp.start()
        assert (pulp.url, pulp.password) == (url, password)
        with pytest.raises(PulpError, match="another process runs a Pulp"):
            LocalPulp(pulp.config).start()
    assert not _inside(data)
    assert not data.exists()


def test_a_killed_one_takes_all_its_processes_with_it(tmp_path: Path) -> None:
    # Not in tmp_path, which PostgreSQL's own user cannot enter.
    with local.tempdir() as folder:
        data = Path(str(folder))
        data.chmod(0o711)
        words = ["-m", "deploy.pulp.local", "up", "--data", str(data), "--cache", str(pulp_cache()), "--workers", "1"]
        log = tmp_path / "log"
        with log.open("wb") as output:
            popen = local[sys.executable][words].popen(stdin=None, stdout=output, stderr=output, cwd=str(_ROOT))
        until(lambda: "Ctrl-C" in log.read_text() or popen.poll() is not None, "Pulp to run")
        assert popen.poll() is None, log.read_text()
        assert _inside(data)
        popen.kill()
        popen.wait()
        until(lambda: not _inside(data), "its processes to end")


def _inside(data: Path) -> list[int]:
    """Processes that work in the folder of a Pulp."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = (entry / "cwd").readlink()
        except OSError:
            continue
        if place.is_relative_to(data):
            found.append(int(entry.name))
    return found
