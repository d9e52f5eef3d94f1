"""Errors of Pulp, and a sentence for the error in an answer, a task or a connection.

Everything that Pulp says is shown on one printable line of bounded length: some of it comes out of recipes.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pulp_glue.common.exceptions import PulpException

from farm.model.text import clip, printable

_SHOWN_CHARS = 400


class NotThere(PulpException):
    """Pulp did not answer, or not in a way that made sense, for as long as it was asked."""


class TaskFailed(PulpException):
    """A task ended without success, or was cancelled."""


class TaskTooSlow(TaskFailed):
    """A task did not end in time, and was cancelled for that."""


class PulpFull(TaskFailed):
    """A task failed for want of room in Pulp's storage."""


def connection_words(text: str) -> str:
    """The root cause in urllib3's nested messages, if known."""
    known = re.search(r"\[Errno -?\d+\] [^'\")]+|Read timed out|Remote end closed connection[^'\")]*", text)
    return known.group(0) if known else text


def task_words(task: Mapping[str, Any]) -> str:
    error = task.get("error") or {}
    return short(str(error.get("description") or error.get("reason") or "Pulp does not say why"))


def body_words(body: str) -> str:
    """An answer's text: of JSON the sentences, of a page nothing."""
    try:
        found = json.loads(body)
    except ValueError:
        return "its answer is an HTML page" if "<html" in body.lower() else short(body)
    return short("; ".join(_sentences(found, "")))


def _sentences(found: Any, key: str) -> list[str]:
    if isinstance(found, dict):
        return [text for name, value in found.items() for text in _sentences(value, str(name))]
    if isinstance(found, list):
        return [text for value in found for text in _sentences(value, key)]
    return [f"{key}: {found}" if key not in ("", "detail", "non_field_errors") else str(found)]


def short(text: str) -> str:
    return clip(printable(" ".join(text.split())), _SHOWN_CHARS)
