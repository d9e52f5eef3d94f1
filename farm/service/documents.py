"""The `--json` documents, spelled out field by field, so that a change of a class does not change the documents.

docs/json.md describes them; tests/unit/test_cli_json.py pins them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from farm.errors import BadTarget
from farm.model.artifact import Artifact
from farm.model.audit import AuditRecord
from farm.model.build import Attempt, Batch, Build, BuildOptions, Replacement, Step
from farm.model.project import Project, ProjectPackage
from farm.model.source import Source
from farm.model.target import Target
from farm.model.token import Token
from farm.model.worker import HostHold, WorkerFacts, hold_of
from farm.repositories import RepositoryCheck, RepositoryVersion
from farm.service.files import StoredFile
from farm.service.limits import differing_limits
from farm.service.repository import Repository, Rollback


def build(value: Build) -> dict[str, Any]:
    return {
        "id": value.id,
        "batch": value.batch_id,
        "project": value.project,
        "package": value.package,
        "nevra": value.nevra,
        "commit": value.commit,
        "source": _source(value.source),
        "target": value.target,
        "target_sha256": value.target_sha256,
        "arches": list(value.arches),
        "options": _options(value.options),
        "priority": value.priority,
        "owner": value.owner,
        "status": value.status,
        "outcome": value.outcome,
        "reason": value.reason,
        "created_at": _time(value.created_at),
        "finished_at": _time(value.finished_at),
        "steps": [step(one) for one in value.steps],
        "warnings": list(value.warnings),
        "replaces": [_replacement(one) | {"build": one.of} for one in value.replaces],
        "replaced": [_replacement(one) | {"build": one.by} for one in value.replaced],
    }


def _options(value: BuildOptions) -> dict[str, Any]:
    return {
        "with": list(value.with_),
        "without": list(value.without),
        "defines": [{"name": name, "value": text} for name, text in value.defines],
        "timeout_s": value.timeout_s,
        "limits": value.limits.given,
    }


def _replacement(value: Replacement) -> dict[str, Any]:
    return {"package": value.package, "arches": list(value.arches), "at": _time(value.at)}


def limits(value: Build, target: Target | None) -> dict[str, Any] | None:
    """The limits of a build's `build` steps that differ from the target's; None if the target no longer exists."""
    if target is None:
        return None
    return {name: {"value": own, "target": usual} for name, own, usual in differing_limits(value, target)}


def batch(value: Batch) -> dict[str, Any]:
    return {
        "id": value.id,
        "owner": value.owner,
        "created_at": _time(value.created_at),
        "builds": [build(one) for one in value.builds],
    }


def step(value: Step) -> dict[str, Any]:
    return {
        "step": value.kind,
        "arch": value.arch,
        "status": value.status,
        "outcome": value.outcome,
        "reason": value.reason,
        "waits_for": value.waits_for,
        "counts": value.counts,
        "attempts": [_attempt(one) for one in value.attempts],
    }


def file(value: StoredFile) -> dict[str, Any]:
    return {"step": value.step, "arch": value.arch, "attempt": value.attempt, **_artifact(value.artifact)}


def repository(value: Repository) -> dict[str, Any]:
    return {
        "project": value.project,
        "target": value.target,
        "arch": value.arch,
        "version": value.version,
        "baseurl": value.baseurl,
        "debug_url": value.debug_url,
        "source_url": value.source_url,
        "repo_file": value.repo_file,
    }


def version(value: RepositoryVersion) -> dict[str, Any]:
    return {
        "version": value.number,
        "published_at": _time(value.published_at),
        "packages": value.packages,
        "url": value.url,
        "is_current": value.is_current,
    }


def rollback(value: Rollback, undo: str) -> dict[str, Any]:
    return {
        "repository": value.path,
        "to": value.to,
        "before": version(value.before),
        "after": version(value.after),
        "undo": undo,
    }


def check(value: RepositoryCheck) -> dict[str, Any]:
    return {"what": value.what, "is_ok": value.is_ok, "found": value.found, "remedy": value.remedy}


def target(name: str, value: Target | BadTarget) -> dict[str, Any]:
    """The document of an invalid target has its error and no other value."""
    valid = value if isinstance(value, Target) else None
    return {
        "name": name,
        "distribution": valid.distribution if valid else None,
        "release": valid.release if valid else None,
        "format": valid.format if valid else None,
        "engine": valid.engine if valid else None,
        "arches": list(valid.arches) if valid else [],
        "error": None if valid else str(value),
    }


def worker(value: WorkerFacts, holds: Mapping[str, HostHold], running: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """`holds` is keyed by host; `running` has labels of attempts, by worker."""
    holding = (hold_of(value.host, queue, holds) for queue in value.queues)
    found = next((one for one in holding if one), None)
    return {
        "name": value.name,
        "host": value.host,
        "queues": list(value.queues),
        "slots": value.slots,
        "arches": list(value.arches),
        "engines": list(value.engines),
        "started_at": _time(value.started_at),
        "version": value.version,
        "cpus": value.cpus,
        "memory_bytes": value.memory_bytes,
        "disk_free_bytes": value.disk_free_bytes,
        "unfit": value.unfit,
        "speaks": value.speaks,
        "hold": found.kind if found else None,
        "running": list(running.get(value.name, ())),
    }


def hold(value: HostHold) -> dict[str, Any]:
    return {
        "host": value.host,
        "role": value.role or None,
        "hold": value.kind,
        "reason": value.reason,
        "by": value.by,
        "at": _time(value.at),
        "until": _time(value.until_at) if value.until_at else None,
        "hands_back": value.hands_back,
    }


def project(value: Project) -> dict[str, Any]:
    return {
        "name": value.name,
        "title": value.title,
        "targets": list(value.targets),
        "builds_on": list(value.builds_on),
        "root_packages": list(value.root_packages),
        "private": value.is_private,
        "members": [{"actor": one.actor, "role": one.role} for one in value.members],
        "created_at": _time(value.created_at),
        "created_by": value.created_by,
        "removed_at": _time(value.removed_at),
        "removed_by": value.removed_by,
    }


def package(value: ProjectPackage) -> dict[str, Any]:
    return {
        "project": value.project,
        "name": value.name,
        "source": _source(value.source),
        "arches": list(value.arches),
        "options": _options(value.options),
        "added_at": _time(value.added_at),
        "added_by": value.added_by,
    }


def token(value: Token) -> dict[str, Any]:
    return {
        "id": value.id,
        "name": value.name,
        "actor": value.actor,
        "roles": list(value.roles),
        "created_at": _time(value.created_at),
        "created_by": value.created_by,
        "expires_at": _time(value.expires_at),
        "last_used_at": _time(value.last_used_at),
        "revoked_at": _time(value.revoked_at),
        "revoked_by": value.revoked_by,
        "project": value.project,
    }


def audit(value: AuditRecord) -> dict[str, Any]:
    return {
        "id": value.id,
        "at": _time(value.at),
        "actor": value.actor,
        "origin": value.origin,
        "verb": value.verb,
        "subject": value.subject,
        "detail": value.detail,
        "outcome": value.outcome,
    }


def queues(serving: Mapping[str, tuple[int, str]], counts: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "slots": serving.get(name, (0, ""))[0], "ready": ready, "busy": busy}
        for name in sorted({*serving, *counts})
        for ready, busy in [counts.get(name, (0, 0))]
    ]


def settings(shown: Mapping[str, str], origins: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"value": value, "from": origins[name]} for name, value in shown.items()}


def steps(values: Sequence[Step]) -> list[dict[str, Any]]:
    return [step(one) for one in values]


def _attempt(value: Attempt) -> dict[str, Any]:
    return {
        "label": value.label,
        "number": value.number,
        "status": value.status,
        "outcome": value.outcome,
        "reason": value.reason,
        "excerpt": value.excerpt,
        "worker": value.worker,
        "dispatched_at": _time(value.dispatched_at),
        "started_at": _time(value.started_at),
        "finished_at": _time(value.finished_at),
        "phases": [{"name": phase.name, "seconds": phase.seconds} for phase in value.phases],
        "peak_memory_bytes": value.peak_memory_bytes,
        "artifacts": [_artifact(one) for one in value.artifacts],
    }


def _artifact(value: Artifact) -> dict[str, Any]:
    return {
        "name": value.name,
        "kind": value.kind,
        "sha256": value.sha256,
        "size_bytes": value.size_bytes,
        "nevra": value.identity,
    }


def _source(value: Source) -> dict[str, Any]:
    return {
        "kind": value.kind,
        "url": value.url,
        "ref": value.ref,
        "subdir": value.subdir,
        "spec": value.spec,
        "sha256": value.sha256,
        "filename": value.filename,
    }


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value else None
