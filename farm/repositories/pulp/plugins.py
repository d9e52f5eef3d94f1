"""The names that Pulp's RPM plugin and its file plugin give to the same concepts. It makes no requests."""

from collections.abc import Mapping
from dataclasses import dataclass

from pulp_glue.common.context import (
    PulpContentContext,
    PulpDistributionContext,
    PulpPublicationContext,
    PulpRepositoryContext,
)
from pulp_glue.file.context import (
    PulpFileContentContext,
    PulpFileDistributionContext,
    PulpFilePublicationContext,
    PulpFileRepositoryContext,
)
from pulp_glue.rpm.context import (
    PulpRpmDistributionContext,
    PulpRpmPackageContext,
    PulpRpmPublicationContext,
    PulpRpmRepositoryContext,
)

REFUSED = 400  # Pulp's answer to an impossible request, such as one for a name that is taken


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """`path` is the field with a content unit's path in its repository."""

    repository: type[PulpRepositoryContext]
    publication: type[PulpPublicationContext]
    distribution: type[PulpDistributionContext]
    content: type[PulpContentContext]
    path: str
    publication_options: Mapping[str, str]


RPM = Plugin(
    repository=PulpRpmRepositoryContext,
    publication=PulpRpmPublicationContext,
    distribution=PulpRpmDistributionContext,
    content=PulpRpmPackageContext,
    path="location_href",
    # Gzip, which every dnf and libsolv of EL8 reads.
    publication_options={"compression_type": "gz"},
)
FILE = Plugin(
    repository=PulpFileRepositoryContext,
    publication=PulpFilePublicationContext,
    distribution=PulpFileDistributionContext,
    content=PulpFileContentContext,
    path="relative_path",
    publication_options={},
)
