#!/bin/sh
# In place of /usr/bin/date: the same, more than a year later. /run/farm/date is the root's own.
case " $* " in
*" -d"* | *" --d"* | *" -r"* | *" --r"* | *" -f"* | *" --f"*) exec /run/farm/date "$@" ;;
esac
exec /run/farm/date -d "+34586831 seconds" "$@"
