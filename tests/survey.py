"""The package `survey`, which asks for everything that a build may count on: its answers, and the known differences."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.packages import package_dir

#: The questions that a build in a root answers with no and a build on bare metal with yes. docs/build-environment.md
#: has the reasons.
DIFFERENCES = frozenset({"core-dumps-can-be-allowed", "other-user-namespaces"})
#: Fewer answers mean that the survey did not run.
QUESTIONS_MIN = 80
_NOBODY = 65534
_LINE = re.compile(r"^survey: (?P<question>[a-z0-9-]+): (?P<answer>.*)$", re.MULTILINE)
_WITHIN_S = 120.0


def answers(log: str) -> dict[str, str]:
    """The answers in the log of a build: "yes" or "no (…)", by question."""
    return {found["question"]: found["answer"] for found in _LINE.finditer(log)}


def on_bare_metal(*, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The answers when rpmbuild runs on this machine itself as an unprivileged user, if this process is root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in ("survey.spec", "survey.py"):  # Python may have left a folder beside them
            shutil.copy(package_dir("survey") / source, folder)
        user = _NOBODY if os.geteuid() == 0 else os.geteuid()
        for path in (folder, *folder.iterdir()):
            os.chown(path, user, -1)
        define = f"--define '_topdir {name}/top' --define '_sourcedir {name}' --define '_dbpath {name}/db'"
        # A pipe of that user's, as on a terminal or in a login session.
        script = f"umask 022; rpmbuild -bb --nodeps --noclean {define} survey.spec 2>&1 | cat"
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=folder,
            user=user,
            group=_NOBODY if user == _NOBODY else None,
            extra_groups=[] if user == _NOBODY else None,
            env={"PATH": "/usr/bin:/bin", "HOME": name, "LC_ALL": "C.UTF-8", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_WITHIN_S,
            check=False,
        )
        return answers(done.stdout)


def refused(found: Mapping[str, str]) -> dict[str, str]:
    """The questions that were not answered with yes, and their answers."""
    return {question: answer for question, answer in found.items() if answer != "yes"}
