"""The configuration with which git runs for `fetch`: its own, its attributes, and that of ssh."""

import hashlib

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

#: Files are read as they are stored: without changes of line ends, keywords or filters, and none is left out for the
#: tree's attributes.
ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -export-subst -export-ignore\n"

VERSION = hashlib.sha256(TEXT.encode()).hexdigest()[:8]

#: Without root's keys, known hosts and ssh configuration: ssh finds them by the user, not by HOME.
SSH = (
    *("ssh", "-F", "/dev/null", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15"),
    *("-oServerAliveCountMax=4", "-oIdentitiesOnly=yes", "-oIdentityAgent=none", "-oStrictHostKeyChecking=yes"),
    *("-oPreferredAuthentications=publickey", "-oGlobalKnownHostsFile=/etc/ssh/ssh_known_hosts"),
    *("-oClearAllForwardings=yes", "-oUpdateHostKeys=no", "-oControlPath=none"),
)
