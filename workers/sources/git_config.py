"""The configuration with which git runs on untrusted repositories: its own, its attributes, and that of ssh."""

import hashlib
import shutil
from types import MappingProxyType

from farm.errors import HostUnfit

#: Read in place of the host's and the user's git configuration.
TEXT = """\
[safe]
	directory = *
[protocol]
	allow = never
[protocol "https"]
	allow = always
[protocol "http"]
	allow = always
[protocol "ssh"]
	allow = always
[protocol "git"]
	allow = always
[protocol "file"]
	allow = always
[core]
	hooksPath = /dev/null
	attributesFile = /dev/null
	fsmonitor = false
	askPass = /bin/false
[credential]
	helper =
[http]
	lowSpeedLimit = 500
	lowSpeedTime = 60
[fetch]
	recurseSubmodules = false
[gc]
	autoDetach = false
[submodule]
	recurse = false
[gpg]
	program = /bin/false
[gpg "ssh"]
	program = /bin/false
[gpg "x509"]
	program = /bin/false
[init]
	defaultBranch = main
"""

_AS_STORED = "* -text -eol -ident -filter -working-tree-encoding"
#: Files are read as they are stored: without changes of line ends, keywords or filters, and none is left out for the
#: tree's attributes.
ATTRIBUTES = f"{_AS_STORED} -export-subst -export-ignore\n"
#: The same, but the tree says in which files git fills in `$Format:…$`.
ATTRIBUTES_WITH_SUBST = f"{_AS_STORED} -export-ignore\n"

#: Variables for a git that reads no configuration but the repository's.
UNCONFIGURED = MappingProxyType({"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"})
#: Options with which git reads the repository's configuration, and starts no program that it names.
SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*")
#: Options for the author of the farm's own commits and tags.
PERSON = ("-c", "user.name=farm", "-c", "user.email=farm@localhost")
_SHA1_DIGITS = 40

VERSION = hashlib.sha256(TEXT.encode()).hexdigest()[:8]

#: Without root's keys, known hosts and ssh configuration: ssh finds them by the user, not by HOME.
SSH = (
    *("ssh", "-F", "/dev/null", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15"),
    *("-oServerAliveCountMax=4", "-oIdentitiesOnly=yes", "-oIdentityAgent=none", "-oStrictHostKeyChecking=yes"),
    *("-oPreferredAuthentications=publickey", "-oGlobalKnownHostsFile=/etc/ssh/ssh_known_hosts"),
    *("-oClearAllForwardings=yes", "-oUpdateHostKeys=no", "-oControlPath=none"),
)


def object_format(commit: str) -> str:
    """The object format of a commit's repository, by the length of its id."""
    return "sha256" if len(commit) > _SHA1_DIGITS else "sha1"


def init_bare(form: str) -> tuple[str, ...]:
    """The beginning of a command that makes a bare repository without hooks of this host."""
    return ("init", "--quiet", "--bare", "--template=", f"--object-format={form}")


def git() -> str:
    """The path of git. Raises HostUnfit, since the command line begins with another tool."""
    found = shutil.which("git")
    if found is None:
        raise HostUnfit("git is not installed on this host; run deploy/bootstrap, or install the tool")
    return found
