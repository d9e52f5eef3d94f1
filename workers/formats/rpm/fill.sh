#!/bin/sh
# Runs in a sandbox that shows the host's tools and one root at /mnt/root: runs dnf, and adds the build user and the
# folders that a session needs. Scriptlets of packages that the farm built run here, so the sandbox shows nothing else
# of the host, and the worker trusts no file from here: it knows the packages from dnf's plan, written before scriptlets
# run.
#
#   fill.sh <user id> <rpm database> <"packages" or "all": what the plan names; "" to download only> <dnf arguments ...>
set -eu
uid=$1 database=$2 plan=$3 root=/mnt/root
shift 3
sh /run/database.sh before "$root" "$database"
FARM_PLAN=$plan dnf "$@"
[ -n "$plan" ] || exit 0
# A scriptlet may have left a pipe or a link; this script would hang on the one and follow the other.
for name in passwd group; do
    file=$root/etc/$name
    if [ -L "$file" ] || { [ -e "$file" ] && [ ! -f "$file" ]; }; then
        echo "error: /etc/$name of the root is not a regular file"
        exit 1
    fi
done
# The build user; written here and not by the host, since /etc/passwd of a hostile root may be a link to anywhere.
grep -q '^farm:' "$root/etc/passwd" 2>/dev/null || {
    # A session mounts over these folders, and its root may be read-only by then.
    mkdir -p "$root/etc" "$root/builddir" "$root/run/farm" "$root/tmp" "$root/var/tmp" "$root/proc" "$root/sys" "$root/dev"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    echo "farm:x:$uid:$uid:build user:/builddir:/bin/sh" >> "$root/etc/passwd"
    echo "farm:x:$uid:" >> "$root/etc/group"
}
# The sandbox's host name is farm, which has to resolve. A layer may have brought another file than the template's.
hosts=$root/etc/hosts
if [ ! -L "$hosts" ] && { [ -f "$hosts" ] || [ ! -e "$hosts" ]; }; then
    grep -qw localhost "$hosts" 2> /dev/null || printf '127.0.0.1 localhost\n::1 localhost\n' >> "$hosts"
    grep -qw farm "$hosts" || echo '127.0.0.1 farm.localdomain farm' >> "$hosts"
fi
rm -rf "$root/var/log/dnf"* "$root/var/lib/dnf"
sh /run/database.sh after "$root" "$database"
