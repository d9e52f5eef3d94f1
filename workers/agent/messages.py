"""Reduces a Celery message to the parts that the farm uses: the task, its attempt, and the link that follows it.

Builders may push messages to the queue of uploads, and the writer of a message can have Celery do much: callbacks and
error callbacks that the reader sends with its own account, a time until which the reader holds the message in memory,
limits, groups. The farm sends none of these, so all of them are removed.
"""

import json
from typing import Any

from kombu.exceptions import KombuError

from farm.broker import keys
from farm.steps.base import StepType
from farm.steps.registry import build_workflow, queue_of, step_types

_TEXTS = ("lang", "task", "id", "root_id", "parent_id", "shadow", "argsrepr", "kwargsrepr", "origin")
_TEXT_CHARS = 1024


def reduce_message(message: Any) -> None:
    """Reduce a message, in place, to the parts of the farm's own messages. Raises ValueError for any other message."""
    try:
        _, kwargs, embed = message.payload
        task, links = message.headers["task"], embed.get("chain") or ()
        kind = _step_type(task)
        follows = build_workflow().following(kind.name) if kind else None
        chain = [_sent_on(link, kwargs) for link in links[-1:] if follows is not None and link["task"] == follows.task]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, KombuError) as error:
        raise ValueError(f"it is not of Celery's second protocol: {error!r}") from error
    if kind is None:
        raise ValueError(f"task {str(task)[:64]!a} is none of the farm's")
    order = {name: kwargs.get(name) for name in ("attempt", "v")} if isinstance(kwargs, dict) else {}
    if not _is_plain(order.get("attempt", 0)) or not isinstance(order.get("v"), int):
        raise ValueError(f"it has no attempt, or no version, but {str(order)[:64]!a}")
    texts = {name: message.headers.get(name) for name in _TEXTS}
    if wrong := [name for name, text in texts.items() if not _is_plain(text)]:
        raise ValueError(f"its header {wrong[0]} is {str(texts[wrong[0]])[:64]!a}")
    message.headers = {**texts, "ignore_result": True}
    message.body = json.dumps([[], order, {"chain": chain or None}])
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message._decoded_cache = None  # noqa: SLF001 - kombu keeps what it decoded before


def _sent_on(link: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """The link as this worker sends it. To the queue of another role, where this worker's account may do less, it goes
    behind the scheduler's own messages."""
    queue = link["options"]["queue"]
    if queue == queue_of(order["attempt"]):
        return link
    return {**link, "options": {**link["options"], "exchange": keys.BEHIND, "routing_key": queue}}


def _step_type(task: object) -> StepType[Any, Any] | None:
    return next((one for one in step_types() if one.task == task), None)


def _is_plain(text: object) -> bool:
    return text is None or (isinstance(text, str) and len(text) <= _TEXT_CHARS)
