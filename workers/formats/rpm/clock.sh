#!/bin/sh
# Runs inside the root, as the build user: asks rpm for the name, version and release of a spec as they would be at
# another time. `date` and Lua's functions answer as of then; the answer is in /builddir/out/later.
#
#   clock.sh <spec> <rpmspec options ...>
spec=$1
shift
shifted=/builddir/later.spec
cat > "$shifted" <<'END'
%{lua: do
local time, date = os.time, os.date
os.time = function(a) if a then return time(a) end return time() + 34586831 end
os.date = function(f, a) return date(f, a or os.time()) end
end}
END
cat "$spec" >> "$shifted"
rpmspec -q --srpm "$@" --qf '%{name}-%{version}-%{release}\n' "$shifted" > /builddir/out/later 2> /dev/null
rm -f "$shifted"
exit 0
