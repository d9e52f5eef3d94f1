#!/bin/sh
# Runs inside the root, as the build user: make the source package, and write what its header says to /builddir/out.
#
#   srpm.sh <spec file in /builddir/in, or "" for a src.rpm there> <source.src.rpm or ""> <rpmbuild options ...>
set -u
spec=$1 given=$2
shift 2
if [ -n "$spec" ]; then
    sources=/builddir/in
    spec=/builddir/in/$spec
else
    sources=/builddir/build/SOURCES
    rpm -i --nosignature --define "_topdir /builddir/build" "/builddir/in/$given" || exit
    for spec in /builddir/build/SPECS/*.spec; do :; done
fi
rpmbuild -bs --nodeps "$@" --define "_sourcedir $sources" "$spec" || exit
for made in /builddir/results/*src.rpm; do :; done
# `rpmlib(...)` says what rpm has to understand, and is nothing that a root could be given.
rpm -qp --nosignature --qf 'name %{NAME}
epoch %|EPOCH?{%{EPOCH}}:{0}|
version %{VERSION}
release %{RELEASE}
[requires %{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}
][exclusive %{EXCLUSIVEARCH}
][exclude %{EXCLUDEARCH}
]' "$made" > /builddir/out/header || exit
rpmspec -q --qf 'binary %{ARCH}
' "$@" --define "_sourcedir $sources" "$spec" >> /builddir/out/header 2>/dev/null ||
    echo "[farm] the binary packages' arches cannot be read on this arch"
