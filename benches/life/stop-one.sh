#!/usr/bin/env bash
# Stops one worker for some seconds: stop-one.sh SECONDS, as a command for `maitred bench --disturb`.
# In front of maitred it is the one in slot 0, of a peer the first child of its first process.
set -euo pipefail
if [ -n "${MAITRED_CONTROL:-}" ]; then
  pid=$("$MAITRED" status --control "$MAITRED_CONTROL" | awk '$1 == "SLOT" { getline; print $3; exit }')
else
  pid=$(pgrep -o -P "$MAITRED_PID")
fi
trap 'kill -CONT "$pid"' EXIT
trap 'exit 1' TERM
kill -STOP "$pid"
# A shell that waits for a child hears no signal meanwhile.
sleep "$1" &
wait $!
