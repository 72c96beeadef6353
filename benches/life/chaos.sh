#!/usr/bin/env bash
# One thing that may happen to a front and its workers, by lot: a command for `maitred bench --disturb`.
# The lot hangs on CHAOS_SEED and MAITRED_TIME alone; what was done is written to CHAOS_LOG. With
# CHAOS_UPGRADE the binary is replaced, too.
set -euo pipefail
RANDOM=$(((CHAOS_SEED * 7919 + MAITRED_TIME * 104729) % 32768))
# The first of a sequence follows the seed too closely.
for _ in 1 2 3; do : $RANDOM; done

note() { echo "$MAITRED_TIME $*" >>"$CHAOS_LOG"; }
ask() { local what=$1; shift; "$MAITRED" "$what" --control "$MAITRED_CONTROL" "$@" >/dev/null; }
# One of the workers that serve.
victim() {
  "$MAITRED" status --control "$MAITRED_CONTROL" |
    awk '$1 == "SLOT" { table = 1; next } !NF { table = 0 } table && $5 == "ready" { print $3 }' |
    awk -v lot=$RANDOM '{ pid[NR] = $1 } END { if (NR) print pid[lot % NR + 1] }'
}
kill_one() {
  local pid
  pid=$(victim)
  if [ -n "$pid" ] && kill -KILL -- "-$pid" 2>/dev/null; then note "kill $pid"; else note "kill nobody"; fi
}
stop_one() {
  local time=0.$((RANDOM % 9 + 1))
  [ $((RANDOM % 3)) = 0 ] && time=1.$((RANDOM % 9))
  pid=$(victim)
  [ -n "$pid" ] || { note 'stop nobody'; return 0; }
  trap 'kill -CONT -- "-$pid" 2>/dev/null || true' EXIT
  trap 'exit 1' TERM
  note "stop $pid $time"
  kill -STOP -- "-$pid" 2>/dev/null || true
  # A shell that waits for a child hears no signal meanwhile.
  sleep "$time" &
  wait $!
}
# What is noted first is what is true when it fails.
reload() { note "reload $*"; ask reload "$@"; }
scale() { note "scale $1"; ask scale "$1"; }

lot=$((RANDOM % 12))
case $lot in
  0 | 1 | 2) kill_one ;;
  3 | 4) stop_one ;;
  5) scale $((RANDOM % 6 + 1)) ;;
  6) scale 4 ;;
  7) reload --wait ;;
  8) reload ;;
  9) reload --fleet ;;
  10) reload; sleep 0.0$((RANDOM % 10)); kill_one ;;
  11) if [ -n "${CHAOS_UPGRADE:-}" ]; then note upgrade; ask upgrade; else note 'upgrade not possible'; fi ;;
esac
