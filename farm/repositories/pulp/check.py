"""Whether a Pulp server can be used: reached, recent enough, signed in to, and with the rights that publishing needs.

The check of a right is an invalid request: Pulp checks rights before the content of a request, so it refuses an empty
request with 403 if the right is missing, and with 400 if not. Pulp checks both at once for repositories only, so the
check makes an empty one and removes it again.
"""

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from pulp_glue.common.context import PluginRequirement, PulpRepositoryContext
from pulp_glue.common.exceptions import PulpException, PulpHTTPError, PulpNotAutorized
from pulp_glue.file.context import PulpFileRepositoryContext
from pulp_glue.rpm.context import PulpRpmRepositoryContext

from farm.repositories.base import RepositoryCheck
from farm.repositories.pulp.server import Context, PulpServer

_NEEDED = (PluginRequirement("core", specifier=">=3.49"), PluginRequirement("rpm", specifier=">=3.32.5"))
_NEEDED_ANY = ("file",)
_LOW_BYTES = 2**30
_GIB = 2**30

#: The operations of publishing that are tried, and the role that allows each of them.
_RIGHTS = {
    "upload RPMs": ("content_rpm_packages_upload", "rpm.rpm_package_uploader"),
    "publish RPM repositories": ("publications_rpm_rpm_create", "rpm.rpmpublication_creator"),
    "serve RPM repositories": ("distributions_rpm_rpm_create", "rpm.rpmdistribution_creator"),
    "upload logs and records": ("content_file_files_upload", "file.file_uploader"),
    "publish file repositories": ("publications_file_file_create", "file.filepublication_creator"),
    "serve file repositories": ("distributions_file_file_create", "file.filedistribution_creator"),
    "upload large files in chunks": ("uploads_create", "core.upload_creator"),
}


_REPOSITORIES: Mapping[str, tuple[type[PulpRepositoryContext], str]] = {
    "make RPM repositories": (PulpRpmRepositoryContext, "rpm.rpmrepository_creator"),
    "make file repositories": (PulpFileRepositoryContext, "file.filerepository_creator"),
}


def check(server: PulpServer) -> tuple[RepositoryCheck, ...]:
    """In the order in which a person would look; stops at the first failure that affects all later checks."""
    return tuple(_checks(server))


def _checks(server: PulpServer) -> Iterator[RepositoryCheck]:
    url = server.settings.pulp_url
    try:
        context = server.open()
        status = context.call("status_read")
    except PulpException as error:
        remedy = "see that Pulp runs, and that FARM_PULP_URL, FARM_PULP_CA and the credentials are right"
        yield RepositoryCheck(what="Pulp", is_ok=False, found=server.words(error), remedy=remedy)
        return
    yield RepositoryCheck(what="Pulp", is_ok=True, found=f"answers at {url}")
    yield from _versions(context)
    yield _workers(status)
    yield from _storage(status)
    yield from _domain(context)
    try:
        context.call("repositories_rpm_rpm_list", parameters={"limit": 1})
    except PulpException as error:
        remedy = "set FARM_PULP_USERNAME and FARM_PULP_PASSWORD_FILE, or FARM_PULP_CERT"
        yield RepositoryCheck(what="account", is_ok=False, found=server.words(error), remedy=remedy)
        return
    yield RepositoryCheck(what="account", is_ok=True, found=f"signed in as {server.who()}")
    for what, (repository, role) in _REPOSITORIES.items():
        yield _right_to_make(context, what, repository, role)
    for what, (operation, role) in _RIGHTS.items():
        yield _right(context, what, operation, role)


def _versions(context: Context) -> Iterator[RepositoryCheck]:
    for requirement in _NEEDED:
        found = context.component_versions.get(requirement.name)
        yield RepositoryCheck(
            what=f"plugin {requirement.name}",
            is_ok=found in requirement,
            found=found or "not installed",
            remedy="" if found in requirement else f"the farm needs {requirement.name}{requirement.specifier}",
        )
    for name in _NEEDED_ANY:
        found = context.component_versions.get(name)
        remedy = "" if found else f"install the plugin {name}, or set FARM_UPLOAD_LOGS=0"
        yield RepositoryCheck(
            what=f"plugin {name}", is_ok=found is not None, found=found or "not installed", remedy=remedy
        )


def _workers(status: dict[str, Any]) -> RepositoryCheck:
    count = len(status["online_workers"])
    content = len(status["online_content_apps"])
    return RepositoryCheck(
        what="processes",
        is_ok=bool(count and content),
        found=f"{count} workers and {content} content apps are online",
        remedy=""
        if count and content
        else "start the missing ones: no task ends without workers, and no client can install without content apps",
    )


def _storage(status: dict[str, Any]) -> Iterator[RepositoryCheck]:
    storage = status.get("storage")
    if storage:
        free = int(storage["free"])
        is_ok = free >= _LOW_BYTES
        found = f"{free / _GIB:.1f} GiB of {int(storage['total']) / _GIB:.1f} GiB are free"
        yield RepositoryCheck(what="storage", is_ok=is_ok, found=found, remedy="" if is_ok else "free some space there")


def _domain(context: Context) -> Iterator[RepositoryCheck]:
    if context.pulp_domain != "default" and not context.domain_enabled:
        remedy = "unset FARM_PULP_DOMAIN, or set DOMAIN_ENABLED in Pulp"
        found = f"{context.pulp_domain!r} is asked for, and this Pulp has no domains"
        yield RepositoryCheck(what="domain", is_ok=False, found=found, remedy=remedy)


def _right_to_make(context: Context, what: str, kind: type[PulpRepositoryContext], role: str) -> RepositoryCheck:
    name = f"{context.server.settings.pulp_prefix}/check-{secrets.token_hex(8)}"
    repository = kind(context)
    try:
        repository.create({"name": name, "description": "Made by `farm repo check`, which removes it at once."})
        repository.delete()
    except PulpNotAutorized:
        return _lacking(context, what, role)
    except PulpException as error:
        return RepositoryCheck(what=what, is_ok=False, found=context.server.words(error))
    return RepositoryCheck(what=what, is_ok=True, found="allowed")


def _lacking(context: Context, what: str, role: str) -> RepositoryCheck:
    remedy = f"give {context.server.who()} the role {role} (deploy/pulp/service-account makes an account that has it)"
    return RepositoryCheck(what=what, is_ok=False, found="not allowed", remedy=remedy)


def _right(context: Context, what: str, operation: str, role: str) -> RepositoryCheck:
    if operation not in context.api.operations:
        return RepositoryCheck(what=what, is_ok=True, found="this Pulp has no such right")
    try:
        # An empty file where there is one: pulp-rpm answers a request without it with an error 500.
        body = {"file": b""} if operation.endswith("_upload") else {}
        context.call(operation, body=body, validate_body=False)
    except PulpNotAutorized:
        return _lacking(context, what, role)
    except PulpHTTPError as error:
        if error.status_code == 400:
            return RepositoryCheck(what=what, is_ok=True, found="allowed")
        return RepositoryCheck(what=what, is_ok=False, found=context.server.words(error))
    except PulpException as error:
        return RepositoryCheck(what=what, is_ok=False, found=context.server.words(error))
    return RepositoryCheck(what=what, is_ok=True, found="allowed")
