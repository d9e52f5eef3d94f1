#!/bin/sh
# The way into every sandbox: join the cgroups, limit file sizes, mount the overlay, become the command.
# With an overlay it runs in a private mount namespace, so the mount ends with it, however it ends.
#
#   enter.sh <file size in 512-byte blocks> <overlay options or ""> <mount point> [cgroup.procs ...] -- command ...
set -eu
blocks=$1 overlay=$2 merged=$3
shift 3
while [ "$1" != -- ]; do
    echo 0 > "$1"
    shift
done
shift
ulimit -c 0
ulimit -f "$blocks"
if [ -n "$overlay" ]; then
    # "volatile" spares every sync of what is thrown away; kernels before 5.10 do not know it.
    mount -t overlay overlay -o "$overlay,volatile" "$merged" 2>/dev/null ||
        mount -t overlay overlay -o "$overlay" "$merged"
fi
exec "$@"
