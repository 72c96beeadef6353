#!/usr/bin/env bash
# What reloads, upgrades, kills and stops cost the clients, some half an hour on two cores:
#
#   benches/life.sh DIR [PART]...
#
# writes into DIR the data of `maitred bench` (.json, .csv), what the terminal showed (.txt) and, in the
# end, a line for each run with a verdict (verdict.txt); it fails when a verdict does. The parts:
#   reload    50 rolling reloads during 500 000 connections: Node, Python, a native worker in Rust
#   pm2       50 times PM2's reload during 500 000 connections, or what fits into two minutes
#   upgrade   20 upgrades in place during 200 000 connections
#   chaos     20 times 30 s of kills, stops, scaling, reloads and upgrades by lot
#   stop      one worker of four stopped for half of the time, by an open loop at half of the capacity;
#             undisturbed, and Node's cluster beside both
#   hot-path  hand-offs beside those of the commit before there were lives
# LIFE_QUICK=1 makes all of it 25 times smaller, to see whether it works. LIFE_SEED is chaos's seed.
# Let nothing else run meanwhile. Needs Node, Python and a C compiler; pm2 for its part.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,17s/^# \?//p' "$0" >&2; exit 2; }
dir=$1
shift
parts=("$@")
[ $# -ge 1 ] || parts=(reload pm2 upgrade chaos stop hot-path)
# The last commit whose master knew neither readiness nor reloads nor stalls.
before=4062686
cd "$(dirname "$0")/.."
mkdir -p "$dir" target/life
cargo build --release --quiet --bin maitred --example listener
# The scripts that disturb find it here.
export MAITRED=$PWD/target/release/maitred
cp target/release/examples/listener target/life/native
cc -O2 -o target/life/epoll worker-examples/unaware.c
full() { [ -z "${LIFE_QUICK:-}" ]; }
# A number, or a 25th of it.
n() { if [ -n "${LIFE_QUICK:-}" ]; then echo $((($1 + 24) / 25)); else echo "$1"; fi; }

measure() {
  local name=$1
  shift
  echo "== $name"
  # An invalid run is a result, too; the verdict tells.
  "$MAITRED" bench --json "$dir/$name.json" --csv "$dir/$name.csv" "$@" | tee "$dir/$name.txt" || true
}

# One of the servers and what it needs. The Python server's own backlog of 5 is too short for 64 clients
# with any number of reloads; with --bind the front has its own. It dies at once of SIGTERM.
server() {
  options=(-w 4)
  case $1 in
    node) options+=(-- node benches/peers/server.js 0) ;;
    python) options+=(--run-args "--bind 127.0.0.1:0" -- python3 worker-examples/unaware.py "{port}") ;;
    native) options+=(-- target/life/native blocking 127.0.0.1:0) ;;
    epoll) options+=(-- target/life/epoll 0) ;;
  esac
}

# Spreads TIMES disturbances over CONNECTIONS, or over what fits into SECONDS: from the rates and the time
# of a disturbance in two short runs to the options of the long one.
#   spread NAME CONNECTIONS TIMES SECONDS COMMAND [OPTIONS]...
spread() {
  local name=$1 connections=$2 times=$3 seconds=$4 command=$5
  shift 5
  rm -f target/life/calm.json target/life/busy.json
  "$MAITRED" bench --repeat 1 --duration 4s --json target/life/calm.json "$@" >/dev/null || true
  "$MAITRED" bench --repeat 1 --duration 6s --json target/life/busy.json --disturb "$command" --disturb-every 10ms "$@" \
    >/dev/null || true
  local plan
  plan=$(python3 benches/life/spread.py target/life/calm.json target/life/busy.json "$connections" "$times" "$seconds" \
    2> >(tee "$dir/$name.rate.txt" >&2))
  read -r connections every <<<"$plan"
  measure "$name" --repeat 1 --connections "$connections" --disturb "$command" --disturb-every "$every" \
    --disturb-times "$times" "$@"
}

part_reload() {
  for kind in node python native; do
    server $kind
    spread "reload-$kind" "$(n 500000)" "$(n 50)" 350 '"$MAITRED" reload --wait --control "$MAITRED_CONTROL"' \
      --modes handoff "${options[@]}"
  done
}

part_pm2() {
  command -v pm2-runtime >/dev/null || { echo 'not measured: pm2 is not installed' >&2; return 0; }
  # A home of its own: a PM2 that runs for somebody on this machine is not to be reloaded.
  export RIG_HOME
  RIG_HOME=$(mktemp -d)
  spread pm2 "$(n 500000)" "$(n 50)" "$(n 120)" 'PM2_HOME=$RIG_HOME pm2 reload all' --modes none -w 4 \
    --peer 'PM2 cluster=PM2_HOME=$RIG_HOME exec pm2-runtime start benches/peers/server.js -i {workers}'
  rm -rf "$RIG_HOME"
}

# Whether this binary can replace itself.
can_upgrade() {
  local control pid able=1
  control=$(mktemp -u)
  "$MAITRED" run -qq -w 1 --control "$control" -- target/life/epoll 0 &
  pid=$!
  until "$MAITRED" status --control "$control" >/dev/null 2>&1; do kill -0 $pid; done
  "$MAITRED" upgrade --control "$control" >/dev/null 2>&1 || able=0
  kill $pid
  wait $pid || true
  [ $able = 1 ]
}

part_upgrade() {
  can_upgrade || { echo 'not measured: this maitred cannot upgrade' >&2; return 0; }
  for kind in node epoll; do
    server $kind
    spread "upgrade-$kind" "$(n 200000)" "$(n 20)" 350 '"$MAITRED" upgrade --control "$MAITRED_CONTROL"' \
      --modes handoff "${options[@]}"
  done
}

part_chaos() {
  local kinds=(node python native epoll) piece name
  export CHAOS_LOG CHAOS_SEED CHAOS_UPGRADE=
  if can_upgrade; then CHAOS_UPGRADE=1; fi
  # At least one piece with each server.
  for ((piece = 1; piece <= $(if full; then echo 20; else echo 4; fi); piece++)); do
    name=chaos-$(printf %02d $piece)
    server "${kinds[(piece - 1) % 4]}"
    CHAOS_SEED=$((${LIFE_SEED:-1} * 1000 + piece))
    CHAOS_LOG=$(realpath "$dir")/$name.log
    : >"$CHAOS_LOG"
    # Requests that are refused because others are under way are part of it.
    measure "$name" --repeat 1 --modes handoff --duration "$(if full; then echo 30; else echo 8; fi)s" \
      --disturb benches/life/chaos.sh --disturb-every 300ms "${options[@]}"
  done
}

part_stop() {
  local cluster="exec node benches/peers/cluster.js {workers} {port} ./server.js" rate
  server node
  "$MAITRED" bench --repeat 1 --duration 4s --modes handoff --peer "cluster=$cluster" --json target/life/calm.json \
    "${options[@]}" >/dev/null
  # So slow that the connections which wait for the stopped worker are not too many to be open at once.
  rate=$(python3 -c 'import json, sys
print(int(min([3500] + [run["connections_per_s"] / 2 for run in json.load(open(sys.argv[1]))["runs"]])))' target/life/calm.json)
  echo "rate: $rate connections/s"
  # Longer than the stop: a connection that waits for its end counts as slow, not as hung.
  local load=(--repeat 1 --rate "$rate" --duration 20s --timeout 30s --modes handoff --peer "cluster=$cluster")
  measure stop-none "${load[@]}" "${options[@]}"
  measure stop-one "${load[@]}" --disturb 'benches/life/stop-one.sh 10' --disturb-every 5s --disturb-times 1 "${options[@]}"
}

part_hot-path() {
  local old=target/life/before
  if [ ! -e $old/Cargo.toml ]; then
    git worktree prune
    git worktree add --quiet --detach $old $before
  fi
  (cd $old && cargo build --release --quiet --locked --bin maitred --target-dir ../build-before)
  local run='run -q -w {workers} --mode handoff --name "bench-hot-{port}" -- target/life/epoll {port}'
  measure hot-path -w 4 --modes none --repeat 9 --connections "$(n 100000)" \
    --peer "before=exec target/life/build-before/release/maitred $run" --peer "now=exec \$MAITRED $run"
}

for part in "${parts[@]}"; do
  "part_$part"
done
echo '== verdict'
python3 benches/life/verdict.py "$dir" | tee "$dir/verdict.txt"
