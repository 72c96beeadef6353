#!/usr/bin/env bash
# The measurements that the README quotes, one after the other, some fifteen minutes on two cores:
#
#   benches/lab.sh DIR
#
# writes into DIR, for each of them, the raw data (.json, .csv), the page (.html), the plots and what the
# terminal showed (.txt). Let nothing else run meanwhile. Needs Node, a C compiler and wrk; peers.sh says
# what else it would like to have.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,8s/^# \?//p' "$0" >&2; exit 2; }
dir=$1
cd "$(dirname "$0")/.."
mkdir -p "$dir"
cargo build --release --quiet
maitred=target/release/maitred
server=$(mktemp)
trap 'rm -f "$server"' EXIT
cc -O2 -o "$server" worker-examples/unaware.c
# The page shows the command, so it has a name that says something.
mkdir -p target/lab && cp "$server" target/lab/epoll-server

measure() {
  local name=$1
  shift
  echo "== $name"
  "$maitred" bench --json "$dir/$name.json" --csv "$dir/$name.csv" --html "$dir/$name.html" --svg "$dir/$name" "$@" |
    tee "$dir/$name.txt"
}

# Node's documentation: 70 % of the connections on 2 of 8 workers.
measure trickle-8 -w 8 --workload trickle -- target/lab/epoll-server 18080
measure cheap-node -w 4 --repeat 5 -- node worker-examples/unaware.js 18080
# The same again: do two runs agree?
measure cheap-epoll -w 4 --repeat 5 -- target/lab/epoll-server 18080
measure cheap-epoll-again -w 4 --repeat 5 -- target/lab/epoll-server 18080
for workload in bursty long-lived costly one-slow-worker stalled-worker crash; do
  measure "$workload" -w 4 --workload "$workload"
done
measure open-loop -w 4 --rate 5000 --duration 5s -- node worker-examples/unaware.js 18080

echo '== generator'
benches/generator.sh | tee "$dir/generator.txt"
echo '== peers'
benches/peers.sh "$dir" | tee "$dir/peers.txt"
