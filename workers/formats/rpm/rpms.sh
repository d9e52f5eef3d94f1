#!/bin/sh
# Runs inside the root, as the build user: builds the binary packages. If rpmbuild ends as it does when packages are
# missing, the requirements of the spec, as this root evaluates it, are written to /builddir/out: the generated ones too
# if rpmbuild left a package that requires them. The build folder stays as it is, as with mock: rm would fail on files
# that a test made unreadable, and the farm removes the whole root.
#
#   rpms.sh <rpmbuild options ...> <source package>
set -u
rpmbuild --rebuild --noclean "$@" && exit
code=$?
case $code in 1 | 11) ;; *) exit "$code" ;; esac
form='[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}
]'
for generated in /builddir/out/*.buildreqs.nosrc.rpm; do
    [ "$code" = 11 ] && [ -f "$generated" ] || continue
    rpm -qp --nosignature --qf "$form" "$generated" > /builddir/out/requires
    exit "$code"
done
# Only the options are left: the words move to the end one after the other, until the last one is the first.
count=$#
while [ "$count" -gt 1 ]; do
    set -- "$@" "$1"
    shift
    count=$((count - 1))
done
shift
for spec in /builddir/build/SPECS/*.spec; do
    [ -f "$spec" ] && rpmspec -q --srpm --qf "$form" "$@" "$spec" > /builddir/out/requires 2> /dev/null
done
exit "$code"
