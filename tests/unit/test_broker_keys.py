"""The names of keys in the broker stand in one place, which the accounts' rules use as well as all other code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import queues
from farm.broker import keys
from farm.broker.roles import ACCOUNTS, acl

ROOT = Path(__file__).parents[2]
HOMES = {"farm/broker/keys.py", "farm/queues.py"}
#: At the start of a text, or after the mark of a rule or a quote: `farm:…`, `control:…`, and Celery's own names.
_NAME = re.compile(r"(?:^|[~&'\"])(?:farm|control):|celery\.pidbox|/0\.celery|celeryev")


def _texts(path: Path) -> Iterator[str]:
    """The literals of a module, those in f-strings too, without docstrings."""
    tree = ast.parse(path.read_text())
    shown = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in shown:
            yield node.value


def test_no_module_but_one_spells_the_name_of_a_key() -> None:
    found = {}
    for path in sorted([*(ROOT / "farm").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name not in HOMES and (spelt := [text for text in _texts(path) if _NAME.search(text)]):
            found[name] = spelt
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        'KEY = "farm:offer:1"',
        'key = f"farm:lease:{label}"',
        'rule = f"+get ~farm:x"',
        "lua = \"redis.call('GET', 'farm:a')\"",
    ],
)
def test_the_search_finds_a_name_in_any_form(text: str, tmp_path: Path) -> None:
    (path := tmp_path / "module.py").write_text(f'"""farm:docstring"""\n{text}\n')
    assert any(_NAME.search(found) for found in _texts(path))
    assert not any("docstring" in found for found in _texts(path))


def test_each_kind_of_key_has_a_name_of_its_own() -> None:
    label, role = "12.build.x86_64.1", "build.x86_64"
    names = [
        *(keys.EVENTS, keys.HELD, keys.SCHEDULER, keys.BORN, keys.NONE),
        *(of(label) for of in (keys.offer, keys.lease, keys.closed, keys.wake, keys.live_log)),
        *(keys.turned_away(label, "d"), keys.workers(role), keys.worker(role, "build@one"), keys.off(role)),
        *(of("farm/demo") for of in (keys.publish_waiting, keys.publish_took, keys.publish_lock)),
        keys.publish_answer("farm/demo", "me"),
    ]
    assert len(set(names)) == len(names)
    assert all(keys.is_ours(name) for name in names)
    assert keys.after_kind(keys.offer(label)) == keys.after_kind(keys.lease(label)) == label
    assert not keys.is_ours(queues.control_list(role))
    assert not keys.is_ours(keys.replies("somebody"))


def test_every_rule_about_a_key_is_about_one_that_the_code_names() -> None:
    """Each pattern of an account is one that a function of `keys` or `queues` gives."""
    rules = "\n".join(acl(dict.fromkeys(ACCOUNTS, "secret"))).replace("user default", "\nuser default")
    patterns = set(re.findall(r"(?<!\S)(?:%[RW]{1,2})?~(\S+?)\)?(?=\s|$)", rules)) - {"*"}
    ours = {pattern for pattern in patterns if pattern.startswith(keys.PREFIX)}
    kinds = {name.split(":")[1] for name in ours} - {"*"}
    assert kinds == {
        *("offer", "lease", "closed", "wake", "log", "workers", "worker", "off", "held", "none"),
        *("publish", "published", "publish-took", "publishing", "rate"),
    }
    control = {pattern for pattern in patterns if pattern.startswith(f"{queues.CONTROL}:")} - {queues.control_list("*")}
    named = {of(role) for of in (queues.control_list, queues.control_taken) for role in queues.CONTROL_ROLES}
    assert control == {*named, queues.CONTROL_BELL}
