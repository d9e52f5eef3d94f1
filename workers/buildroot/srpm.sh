#!/bin/sh
# Runs inside the root, as the build user: make the source package, and write what its header says to /builddir/out.
#
#   srpm.sh <spec file in /builddir/in, or "" for a src.rpm there> <source.src.rpm or ""> <rpmbuild options ...>
set -u
spec=$1 given=$2
shift 2
if [ -n "$spec" ]; then
    rpmbuild -bs --nodeps "$@" --define "_sourcedir /builddir/in" "/builddir/in/$spec" || exit
else
    rpmbuild -rs --nodeps --nosignature "$@" "/builddir/in/$given" || exit
fi
for made in /builddir/results/*src.rpm; do :; done
# `rpmlib(...)` says what rpm has to understand, and is nothing that a root could be given. ARCH is "noarch"
# where the spec's main package is, and rpm allows no other arch beside such a one.
exec rpm -qp --nosignature --nodigest --qf 'name %{NAME}
epoch %|EPOCH?{%{EPOCH}}:{0}|
version %{VERSION}
release %{RELEASE}
[requires %{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}
][exclusive %{EXCLUSIVEARCH}
][exclude %{EXCLUDEARCH}
]binary %{ARCH}
' "$made" > /builddir/out/header
