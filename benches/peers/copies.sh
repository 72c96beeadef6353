#!/usr/bin/env bash
# N copies of a server, each with its number: copies.sh N COMMAND [ARGS]...
# Ends all of them when it is told to end.
set -euo pipefail
n=$1
shift
trap 'trap - TERM; kill 0' TERM INT EXIT
for ((slot = 0; slot < n; slot++)); do
  MAITRED_SLOT=$slot "$@" &
done
wait
