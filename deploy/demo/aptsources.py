"""Finding the Debian entries among the host's apt sources and writing them as one private sources file.

The host's mirror is used, whichever it is, with the host's keyrings; nothing here turns signature checks off.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.control import parse_stanza
from deploy.demo.errors import DemoError

ETC_APT = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")
KEYRING_PREFIX = "debian-archive-"
COMPONENT = "main"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One apt source, reduced to its `main` component."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    signed_by: str = ""

    def stanza(self, *, arch: str) -> str:
        """The deb822 form, with binary and source indexes, for one Debian architecture."""
        fields = {"Types": "deb deb-src", "URIs": " ".join(self.uris), "Suites": " ".join(self.suites)}
        fields |= {"Components": COMPONENT, "Architectures": arch}
        if self.signed_by:
            fields["Signed-By"] = self.signed_by
        return "".join(f"{key}: {value}\n" for key, value in fields.items())


def host_codename(os_release: Path = OS_RELEASE) -> str:
    """The Debian codename of this host."""
    text = os_release.read_text() if os_release.exists() else ""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name, codename = (values.get(key, "").strip("\"'") for key in ("ID", "VERSION_CODENAME"))
    if name != "debian" or not codename:
        raise DemoError(
            f"this host is {name or 'unknown'!r} according to {os_release}; the demo distribution is made of Debian"
            " packages: run it on Debian and copy the output directory"
        )
    return codename


def host_sources(codename: str, etc_apt: Path = ETC_APT) -> tuple[Source, ...]:
    """The host's own Debian sources of that release. Raises DemoError when there are none."""
    found: list[Source] = []
    for path in (etc_apt / "sources.list", *sorted(etc_apt.glob("sources.list.d/*"))):
        if path.suffix == ".list" and path.is_file():
            found += parse_one_line(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            found += parse_deb822(path.read_text())
    kept = tuple(kept for source in found if (kept := debian_only(source, codename)) is not None)
    if not kept:
        raise DemoError(
            f"no apt source below {etc_apt} offers {codename} {COMPONENT} with Debian's keyring: add Debian's own"
            " sources there, then run this again"
        )
    return kept


def parse_one_line(text: str) -> tuple[Source, ...]:
    """Read the one-line format; source-only lines and comments are skipped."""
    matches = (ONE_LINE.match(line.split("#", 1)[0].strip()) for line in text.splitlines())
    return tuple(_from_match(found) for found in matches if found and COMPONENT in found["components"].split())


def parse_deb822(text: str) -> tuple[Source, ...]:
    """Read the deb822 format; disabled and source-only stanzas are skipped."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    stanzas = (parse_stanza(part) for part in re.split(r"\n\s*\n", plain) if part.strip())
    return tuple(_from_fields(fields) for fields in stanzas if _usable(fields))


def debian_only(source: Source, codename: str) -> Source | None:
    """The source reduced to that release and its updates; None if it is of another vendor or release."""
    path = source.signed_by.strip()
    embedded = "\n" in path
    if path and not embedded and not Path(path).name.startswith(KEYRING_PREFIX):
        return None
    names = {f"{codename}{suffix}" for suffix in ("", "-updates", "-security", "/updates")}
    suites = tuple(suite for suite in source.suites if suite in names)
    if not suites:
        return None
    return Source(uris=source.uris, suites=suites, signed_by=source.signed_by)


def render(sources: Iterable[Source], *, arch: str) -> str:
    """The private sources file."""
    return "\n".join(source.stanza(arch=arch) for source in sources)


def _from_match(found: re.Match[str]) -> Source:
    options = dict(part.split("=", 1) for part in (found["options"] or "").split() if "=" in part)
    return Source(uris=(found["uri"],), suites=(found["suite"],), signed_by=options.get("signed-by", ""))


def _usable(fields: Mapping[str, str]) -> bool:
    enabled = fields.get("Enabled", "yes").lower() not in {"no", "false", "0", "off"}
    return enabled and "deb" in fields.get("Types", "").split() and COMPONENT in fields.get("Components", "").split()


def _from_fields(fields: Mapping[str, str]) -> Source:
    # A key written into the file itself keeps apt's continuation form: every line indented, an empty one as a dot.
    signed_by = fields.get("Signed-By", "")
    if "\n" in signed_by:
        signed_by = "\n " + "\n ".join(line or "." for line in signed_by.strip().splitlines())
    return Source(uris=tuple(fields["URIs"].split()), suites=tuple(fields["Suites"].split()), signed_by=signed_by)
