#!/bin/sh
# Runs inside the root, as the build user: asks rpm for the version and the release of each spec. The folder of a spec
# is /builddir/in/<n>, with a part of it up to %prep in `head.spec` and all of it in `whole.spec`. The answer is written
# to /builddir/out/<n>, or rpm's messages to /builddir/out/<n>.error.
#
#   versions.sh <rpmspec options ...>
for folder in /builddir/in/*/; do
    number=$(basename "$folder")
    for spec in head whole; do
        rpmspec -q --srpm "$@" --define "_sourcedir $folder" --define "_builddir $folder" \
            --qf '%|epoch?{%{epoch}:}:{}|%{version}\n%{release}\n' "$folder/$spec.spec" \
            > "/builddir/out/$number" 2> "/builddir/out/$number.error" && break
        rm -f "/builddir/out/$number"
    done
done
exit 0
