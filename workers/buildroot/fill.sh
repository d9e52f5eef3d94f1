#!/bin/sh
# Runs in a sandbox that shows the host's tools and one root at /mnt/root: dnf, and then what the root is made of.
# Scriptlets of packages that the farm built itself run here, so nothing else of the host is to be seen.
#
#   fill.sh <user id> <rpm database> <file for the list, or "" to download only> <dnf arguments ...>
set -eu
uid=$1 database=$2 list=$3 root=/mnt/root
shift 3
sh /run/database.sh before "$root" "$database"
dnf "$@"
[ -n "$list" ] || exit 0
# The build user; written here and not by the host, since /etc/passwd of a hostile root may be a link to anywhere.
grep -q '^farm:' "$root/etc/passwd" 2>/dev/null || {
    # A room mounts over these, and its root may be read-only by then.
    mkdir -p "$root/etc" "$root/builddir" "$root/run/farm" "$root/tmp" "$root/var/tmp" "$root/proc" "$root/dev"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    echo "farm:x:$uid:$uid:build user:/builddir:/bin/sh" >> "$root/etc/passwd"
    echo "farm:x:$uid:" >> "$root/etc/group"
    [ -e "$root/etc/hosts" ] || echo "127.0.0.1 localhost" > "$root/etc/hosts"
}
rm -rf "$root/var/log/dnf"* "$root/var/lib/dnf"
rpm --root "$root" -qa --qf 'P %{NAME}-%|EPOCH?{%{EPOCH}}:{0}|:%{VERSION}-%{RELEASE}.%{ARCH} %{SHA256HEADER}
[C %{PROVIDENAME} %{PROVIDEFLAGS:depflags} %{PROVIDEVERSION}
][F %{FILENAMES}
]' > "$list"
find "$root" -xdev -type d -perm -0002 ! -path "$root/tmp" ! -path "$root/var/tmp" -printf 'W /%P\n' >> "$list"
sh /run/database.sh after "$root" "$database"
