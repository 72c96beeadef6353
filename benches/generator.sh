#!/usr/bin/env bash
# Is the lab's own client the bottleneck? Its rate beside wrk's against the same server, one client
# thread each, 64 connections at a time, one request per connection, in turns:
#
#   benches/generator.sh [ROUNDS]     5 by default, of three seconds each
set -euo pipefail
rounds=${1:-5}
cd "$(dirname "$0")/.."
command -v wrk >/dev/null || { echo 'wrk is missing: apt-get install wrk' >&2; exit 1; }
cargo build --release --quiet
dir=$(mktemp -d)
trap 'kill $server 2>/dev/null; rm -rf "$dir"' EXIT
cc -O2 -o "$dir/server" worker-examples/unaware.c
"$dir/server" 18090 &
server=$!
until (exec 3<>/dev/tcp/127.0.0.1/18090) 2>/dev/null; do kill -0 $server; done
for ((round = 1; round <= rounds; round++)); do
  wrk -t 1 -c 64 -d 3s -H 'Connection: close' http://127.0.0.1:18090/ >"$dir/wrk.$round"
  target/release/maitred bench --target lab=127.0.0.1:18090 --duration 3s --repeat 1 --json "$dir/lab.$round" >/dev/null
done
python3 - "$dir" "$rounds" <<'SUMMARY'
import json, re, statistics, sys
directory, rounds = sys.argv[1], range(1, int(sys.argv[2]) + 1)
wrk = [float(re.search(r"Requests/sec:\s+([\d.]+)", open(f"{directory}/wrk.{i}").read())[1]) for i in rounds]
lab = [json.load(open(f"{directory}/lab.{i}"))["runs"][0] for i in rounds]
rate = [run["connections_per_s"] for run in lab]
median = statistics.median
show = lambda name, rates: print(f"{name:4} {median(rates):8.0f} connections/s  ({min(rates):.0f} … {max(rates):.0f})")
show("wrk", wrk)
show("lab", rate)
print(f"lab / wrk, median of the rounds: {median(a / b for a, b in zip(rate, wrk)):.2f}")
connections = [sum(run["endings"].values()) for run in lab]
print(f"lab: {median(r['client']['cpu_s'] / n * 1e6 for r, n in zip(lab, connections)):.1f} µs of processor time and "
      f"{median(r['client']['allocations'] / n for r, n in zip(lab, connections)):.4f} allocations per connection")
SUMMARY
