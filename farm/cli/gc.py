"""`farm gc`: removing old artifacts, and pruning the caches of this host."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from farm.cli.options import JsonOption
from farm.cli.session import connected, console, emit, say
from farm.config import Settings
from farm.model.amounts import size


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    older_than: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="DAYS",
            help="Keep the artifacts of builds that ended in the last DAYS; FARM_KEEP_ARTIFACTS_DAYS without it.",
            show_default=False,
        ),
    ] = None,
    caches_only: Annotated[
        bool, typer.Option("--caches-only", help="Leave artifacts alone; for a host that has caches of its own.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove old artifacts, and prune this host's caches.

    Builds may run meanwhile. An artifact stays if an unfinished build or one of the last DAYS names it, or if a kept
    version of a repository has it. Caches are pruned to FARM_CACHE_BYTES, least recently used first.

    \b
    Examples:
      farm gc --dry-run
      farm gc --older-than 30
    """
    from farm.gc import caches

    settings = Settings.from_env()
    days = settings.keep_artifacts_days if older_than is None else older_than
    document: dict[str, Any] = {"dry_run": dry_run, "artifacts": None, "audit_records": 0}
    verb = "would be removed" if dry_run else "were removed"
    lines = []
    if not caches_only and days:
        since = datetime.now(UTC) - timedelta(days=days)
        with connected() as farm:
            found = farm.collect_artifacts(since=since, dry_run=dry_run, say=say)
        document["artifacts"] = {
            "older_than_days": days,
            "looked_at": found.looked_at,
            "old": found.old,
            "removed": found.files,
            "removed_bytes": found.size_bytes,
        }
        document["audit_records"] = found.audit_records
        lines.append(
            f"artifacts: {found.files} of {found.looked_at} {verb} ({size(found.size_bytes)}); "
            f"{found.old - found.files} older ones are still needed"
        )
        if found.audit_records:
            lines.append(f"audit log: {found.audit_records} records {verb}")
    elif not caches_only:
        lines.append("artifacts: all are kept, since FARM_KEEP_ARTIFACTS_DAYS is 0")
    pruned = caches.prune(
        settings.cache, limit_bytes=settings.cache_bytes, dry_run=dry_run, say=say, work=settings.work
    )
    document["caches"] = [
        {"cache": one.cache, "bytes": one.had_bytes, "removed": one.entries, "removed_bytes": one.size_bytes}
        for one in pruned
    ]
    lines += [
        f"cache {one.cache}: {one.entries} entries {verb} ({size(one.size_bytes)} of {size(one.had_bytes)})"
        for one in pruned
    ]
    if json:
        emit({"gc": document})
        return
    for line in lines:
        console().print(line, soft_wrap=True)
