#!/bin/sh
# Runs inside the root, as the build user: builds the binary packages. If %generate_buildrequires named packages that
# are missing, rpmbuild exits with 11 and leaves a package that requires them; its requirements are written to
# /builddir/out.
#
#   rpms.sh <rpmbuild options and the source package ...>
set -u
rpmbuild --rebuild "$@" && exit
code=$?
for asked in /builddir/out/*.buildreqs.nosrc.rpm; do
    [ "$code" = 11 ] && [ -f "$asked" ] &&
        rpm -qp --nosignature --qf '[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}
]' "$asked" > /builddir/out/requires
done
exit "$code"
