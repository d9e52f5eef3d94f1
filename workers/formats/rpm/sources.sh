#!/bin/sh
# Runs inside the root, as the build user: asks rpm for the sources of a spec whose last line runs sources.lua. For each
# arch two files are left in the folder of answers: header.<arch> by rpmspec, and sources.<arch> by sources.lua.
#
#   sources.sh <folder of answers> <arches, the root's own first> <rpmspec options and the spec ...>
set -u
out=$1 arches=$2 other=
shift 2
mkdir -p "$out"
case $(rpm --version) in
    *' 4.'[0-9].* | *' 4.1'[0-4].*) section='%{nil}' ;; # without the sections %sourcelist and %patchlist
    *) section=%%sourcelist ;;
esac
for arch in $arches; do
    rm -rf "$out/sources"
    rpmspec -q --srpm ${other:+--target "$arch"} --define "_farm_answer $out/sources" --define "_farm_section $section" \
        --qf '\nfarm:header\nNAME %{NAME}\nVERSION %{VERSION}\n[NOSOURCE %{NOSOURCE}\n][NOPATCH %{NOPATCH}\n]' \
        "$@" > "$out/header.$arch"
    code=$?
    [ -e "$out/sources" ] && mv -T "$out/sources" "$out/sources.$arch"
    # The spec may say with an error that it is not for another arch.
    if [ "$code" != 0 ]; then
        rm -rf "$out/header.$arch"
        [ -n "$other" ] || exit "$code"
    fi
    other=1
done
exit 0
