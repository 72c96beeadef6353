#!/usr/bin/env bash
# What policies and limits at the door bring, and what they cost, some twenty minutes on two cores:
#
#   benches/policies.sh DIR [PART]...
#
# writes into DIR the data of `maitred bench` (.json, .csv), what the terminal showed (.txt) and, in the end, the
# tables of what is there (summary.md). The parts:
#   open      connections that stay: how evenly policies, the shared socket and Node's cluster spread what is open
#   latency   a slow worker, and costly requests in a closed and in an open loop: policies, depth 1, other modes
#   sources   500 client addresses: does each stay with its worker, and how many move when there are 9, not 8
#   depth     untaken connections per worker, 1 to 64: rate, latency, spread
#   rate      what each policy costs the way of a connection
#   overload  four fifths and twice of what can be served, without a limit and with one, for each --when-full
# By environment variables, here with their defaults: rounds POLICIES_ROUNDS=3, of `rate` POLICIES_RATE_ROUNDS=7;
# length of timed runs POLICIES_SECONDS=5; connections of a run of `rate` and `depth` POLICIES_CONNECTIONS=60000;
# addresses POLICIES_SOURCES=500; the limit of `overload` POLICIES_MAX_OPEN=8.
# Let nothing else run meanwhile. Needs Node, Python and a C compiler.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,18s/^# \?//p' "$0" >&2; exit 2; }
mkdir -p "$1"
dir=$(realpath "$1")
shift
parts=("$@")
[ $# -ge 1 ] || parts=(open latency sources depth rate overload)
rounds=${POLICIES_ROUNDS:-3}
rate_rounds=${POLICIES_RATE_ROUNDS:-7}
seconds=${POLICIES_SECONDS:-5}
connections=${POLICIES_CONNECTIONS:-60000}
sources=${POLICIES_SOURCES:-500}
# A request takes a millisecond of a processor, so that two cores serve less than 2000 a second: with 8 open ones
# each of four workers has one to do and one to go on with, and nobody waits for more than a few milliseconds.
max_open=${POLICIES_MAX_OPEN:-8}
cd "$(dirname "$0")/.."
cargo build --release --quiet --bin maitred
maitred=${CARGO_TARGET_DIR:-target}/release/maitred
# Relative, since the data show the command; outputs go through here for the same reason.
out=target/policies
mkdir -p $out
cc -O2 -o $out/epoll worker-examples/unaware.c

measure() {
  local name=$1
  shift
  echo "== $name"
  rm -f $out/"$name".*
  # An invalid run is a result, too; the summary tells.
  "$maitred" bench --json $out/"$name".json --csv $out/"$name".csv "$@" | tee $out/"$name".txt || true
  cp $out/"$name".* "$dir"
}

# What a subject serves in a closed loop, times a factor: rate NAME SUBJECT FACTOR
rate() { python3 benches/policies/rate.py $out/"$1".json "$2" "$3"; }

least='--policy least-connections'
cluster="cluster=exec node benches/peers/cluster.js {workers} {port} ./server.js"

part_open() {
  measure open -w 4 --workload long-lived --concurrency 200 --duration $((2 * seconds))s --repeat "$rounds" \
    --modes shared --variant round-robin= --variant "least-connections=$least" \
    --variant 'random-two=--policy random-two' --peer "$cluster" -- node benches/peers/server.js 0
}

part_latency() {
  local subjects=(-w 4 --repeat "$rounds" --modes shared,kernel --variant round-robin= --variant "least-connections=$least"
    --variant 'depth 1=--depth 1' --variant "least-connections, depth 1=$least --depth 1")
  measure slow --workload one-slow-worker --duration "${seconds}s" "${subjects[@]}"
  measure costly --workload costly --duration "${seconds}s" "${subjects[@]}"
  # The same mix for workers that block: four are occupied as on four cores, though there are two.
  local block=() times
  for times in 16:100 3:1000 1:10000; do
    for _ in $(seq "${times%:*}"); do block+=(--path "/block/${times#*:}"); done
  done
  measure blocking --duration "${seconds}s" "${block[@]}" "${subjects[@]}"
  measure blocking-open --duration "${seconds}s" --rate "$(rate blocking round-robin 0.85)" "${block[@]}" "${subjects[@]}"
  measure costly-open --workload costly --duration "${seconds}s" --rate "$(rate costly round-robin 0.7)" "${subjects[@]}"
}

part_sources() {
  # Requests are cheap and clients few, so that nobody is ever passed over for being full.
  measure sources -w 8 --repeat "$rounds" --connections $((40 * sources)) --concurrency 32 --sources "$sources" --modes none \
    --variant 'source-hash, 8=--policy source-hash -w 8' --variant 'source-hash, 9=--policy source-hash -w 9' \
    --variant 'round-robin, 8='
  python3 benches/policies/moved.py $out/sources.json 'source-hash, 8' 'source-hash, 9' | tee "$dir/moved.txt"
}

part_depth() {
  local subjects=(-w 4 --repeat "$rounds" --modes none) depth
  for depth in 1 2 4 8 16 64; do subjects+=(--variant "depth $depth=--depth $depth"); done
  measure depth-cheap --connections "$connections" "${subjects[@]}" -- $out/epoll 0
  measure depth-costly --workload costly --duration "${seconds}s" "${subjects[@]}"
  measure depth-slow --workload one-slow-worker --duration "${seconds}s" "${subjects[@]}"
}

part_rate() {
  measure rate -w 4 --repeat "$rate_rounds" --connections "$connections" --modes none --variant round-robin= \
    --variant "least-connections=$least" --variant 'random-two=--policy random-two' \
    --variant 'source-hash=--policy source-hash' -- $out/epoll 0
}

part_overload() {
  local load=(-w 4 --path /burn/1000 --modes none --variant 'no limit=')
  measure capacity --repeat "$rounds" --duration "${seconds}s" "${load[@]}"
  load+=(--variant "wait=--max-open $max_open --max-wait 3ms"
    --variant "reset=--max-open $max_open --when-full reset" --variant "503=--max-open $max_open --when-full 503")
  # Without a limit the queue grows until the end: whoever waits counts as slow, not as hung.
  load+=(--repeat "$rounds" --duration "${seconds}s" --timeout 30s)
  measure overload-80 --rate "$(rate capacity 'no limit' 0.8)" "${load[@]}"
  measure overload-200 --rate "$(rate capacity 'no limit' 2)" "${load[@]}"
}

for part in "${parts[@]}"; do
  "part_$part"
done
python3 benches/policies/summary.py "$dir" | tee "$dir/summary.md"
