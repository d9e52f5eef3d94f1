#!/bin/sh
# Converts the rpm database of a root whose own rpm is older than the host's: EL 8 has Berkeley DB, which a current rpm
# reads badly and does not write. The host's dnf works on its own form; afterwards the root has the form of its own rpm.
#
#   database.sh before|after <root> <path of the database in it>
set -eu
when=$1 root=$2 path=$3
kept=$root/var/lib/farm-host-rpmdb
if [ "$when" = before ]; then
    # A layer starts from the form that the host wrote when it made the template.
    [ -d "$kept" ] || exit 0
    rm -rf "${root:?}$path"
    mv "$kept" "$root$path"
    exit 0
fi
# A root without rpm needs no database that its own rpm can read.
[ -x "$root/usr/bin/rpm" ] || exit 0
ours=$(rpm --root "$root" -qa | wc -l)
theirs=$(chroot "$root" /usr/bin/rpm -qa 2> /dev/null | wc -l)
[ "$ours" != "$theirs" ] || exit 0
echo "[farm] the root's rpm sees $theirs of $ours packages; giving it a database in its own form"
rpmdb --root "$root" --exportdb > "$kept.headers"
mv "$root$path" "$kept"
mkdir -p "$root$path"
chroot "$root" /usr/bin/rpmdb --importdb < "$kept.headers"
rm "$kept.headers"
theirs=$(chroot "$root" /usr/bin/rpm -qa | wc -l)
[ "$ours" = "$theirs" ] || {
    echo "error: the root's rpm still sees $theirs of $ours packages; use the mock engine for this target"
    exit 1
}
