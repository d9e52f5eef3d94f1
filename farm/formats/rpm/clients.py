"""A repository of RPMs for dnf: the .repo file, and the command that does without one."""

from farm.formats.base import Clients


def repo_file(clients: Clients) -> str:
    """A file for /etc/yum.repos.d."""
    sections = [
        f"[{clients.id}{one.suffix}]\nname={clients.target}{one.words} ({clients.arch}) from the farm\n"
        f"baseurl={one.url}\nenabled={int(one.is_enabled)}\ngpgcheck=0\nmetadata_expire=1\n"
        for one in clients.sections
    ]
    return "\n".join(sections)


def install_command(clients: Clients, package: str) -> list[str]:
    url = next(one.url for one in clients.sections if one.is_enabled)
    return ["dnf", f"--repofrompath={clients.id},{url}", f"--setopt={clients.id}.gpgcheck=0", "install", package]
