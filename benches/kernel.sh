#!/usr/bin/env bash
# What kernel mode and the supervision of static binaries reach, some eight minutes on two cores:
#
#   benches/kernel.sh DIR
#
# writes into DIR the data, pages and plots of `maitred bench` and, as text, what the terminal showed:
#   kernel       an epoll server by each mode, beside the same server with plain SO_REUSEPORT
#   go-static    an unmodified static Go net/http server by each mode, supervised
#   calls.txt    a system call that is not watched, with and without the filter before it
# Let nothing else run meanwhile. Needs a C compiler, Go, and for exact turns CAP_BPF (root has it).
set -euo pipefail
[ $# = 1 ] || { sed -n '2,11s/^# \?//p' "$0" >&2; exit 2; }
dir=$1
cd "$(dirname "$0")/.."
mkdir -p "$dir" target/lab
cargo build --release --quiet
maitred=target/release/maitred
cc -O2 -o target/lab/epoll worker-examples/unaware.c
cc -O2 -static -o target/lab/calls benches/calls.c
CGO_ENABLED=0 go build -o target/lab/go-http tests/workers/httpserver.go

# What the kernel counts when a handshake does not become a connection, or a connection is reset.
troubles() {
  awk '{ if ($1 in names) { split(names[$1], n); for (i = 2; i <= NF; i++) value[n[i]] = $i } else names[$1] = $0 }
    END { split("ListenOverflows ListenDrops TCPReqQFullDrop TCPMigrateReqFailure TCPAbortOnData TCPAbortFailed TCPSynRetrans EstabResets", wanted)
      for (i in wanted) print wanted[i], value[wanted[i]] + 0 }' /proc/net/netstat /proc/net/snmp | sort
}

measure() {
  local name=$1
  shift
  echo "== $name"
  troubles >target/lab/before
  "$maitred" bench -w 4 --json "$dir/$name.json" --csv "$dir/$name.csv" --html "$dir/$name.html" \
    --svg "$dir/$name" "$@" | tee "$dir/$name.txt"
  echo 'the kernel counted during all runs:' | tee -a "$dir/$name.txt"
  troubles | join target/lab/before - | awk '{ printf "  %s %d\n", $1, $3 - $2 }' | tee -a "$dir/$name.txt"
}

# Without the privilege kernel mode draws a worker instead of taking turns: what of a difference to plain
# SO_REUSEPORT is the turn, and what the rest?
drawn=(setpriv --bounding-set -bpf,-sys_admin "$maitred" run -q -w '{workers}' --mode kernel -- target/lab/epoll '{port}')
measure kernel --repeat 9 --modes kernel,shared,handoff \
  --peer 'plain SO_REUSEPORT=exec benches/peers/copies.sh {workers} target/lab/epoll {port} reuseport' \
  --peer "kernel, drawn=exec ${drawn[*]}" \
  -- target/lab/epoll 18080
measure go-static --repeat 9 --modes kernel,shared,handoff -- target/lab/go-http 127.0.0.1:18080

# One line of target/lab/calls, run as it is or as a supervised worker.
line() {
  coproc runner { exec "$@" 2>/dev/null; }
  local pid=$runner_PID said
  while read -r said <&"${runner[0]}"; do
    if [[ $said == *ns\ getppid* ]]; then echo "${said##*ns }"; break; fi
  done
  kill -TERM "$pid"
  wait "$pid" || true
}
echo '== calls'
{
  echo 'nanoseconds of one call, the least of 25 times 200 000; five rounds, interleaved'
  for _ in 1 2 3 4 5; do
    echo "no filter:         $(line target/lab/calls)"
    echo "filter, allow all: $(line target/lab/calls allow-all)"
    echo "kernel mode:       $(line "$maitred" run -q -w 1 --mode kernel --adapter seccomp -- target/lab/calls)"
    echo "handoff mode:      $(line "$maitred" run -q -w 1 --mode handoff --adapter seccomp -- target/lab/calls)"
  done
} | tee "$dir/calls.txt"
