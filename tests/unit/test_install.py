"""The editable install that `make` makes: `farm` is the package, wherever a script lies and whatever lies beside it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SCRIPT = "from farm import Farm\nimport celeryconfig, workers\nprint(Farm.__module__, celeryconfig.__file__)\n"


def test_a_clone_called_farm_beside_a_script_does_not_hide_the_farm(tmp_path: Path) -> None:
    (tmp_path / "farm").symlink_to(ROOT)
    (tmp_path / "script.py").write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["farm.client.farm", str(ROOT / "celeryconfig.py")]
