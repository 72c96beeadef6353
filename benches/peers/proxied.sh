#!/usr/bin/env bash
# Node servers on Unix sockets behind a TCP proxy, in the foreground:
#   proxied.sh haproxy|nginx WORKERS PORT
set -euo pipefail
kind=$1 workers=$2 port=$3
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
PATH=$PATH:/usr/sbin
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 0' TERM INT

for ((slot = 0; slot < workers; slot++)); do
  MAITRED_SLOT=$slot node "$here/server.js" "$dir/$slot.sock" &
done
for ((slot = 0; slot < workers; slot++)); do
  # A socket file appears when the server binds, just before it listens: only connecting is proof.
  until python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$dir/$slot.sock" 2>/dev/null
  do kill -0 $$; done
done

servers() { for ((slot = 0; slot < workers; slot++)); do printf "$1\n" "$slot" "$dir/$slot.sock"; done; }
case $kind in
  haproxy)
    cat >"$dir/haproxy.cfg" <<CONFIG
global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen front
  bind 127.0.0.1:$port backlog 4096
  balance roundrobin
$(servers '  server s%s unix@%s')
CONFIG
    haproxy -db -f "$dir/haproxy.cfg" & ;;
  nginx)
    module=$(find /usr/lib/nginx /usr/share/nginx /usr/lib64/nginx -name ngx_stream_module.so 2>/dev/null | head -n 1 || true)
    cat >"$dir/nginx.conf" <<CONFIG
${module:+load_module $module;}
daemon off;
$([ "$(id -u)" != 0 ] || echo 'user root;')
pid $dir/nginx.pid;
error_log stderr crit;
worker_processes auto;
events { worker_connections 10000; }
stream {
  upstream back {
$(servers '    # %s\n    server unix:%s;')
  }
  server { listen 127.0.0.1:$port backlog=4096; proxy_pass back; }
}
CONFIG
    nginx -p "$dir" -c "$dir/nginx.conf" & ;;
  *) echo "unknown proxy $kind" >&2; exit 2 ;;
esac
wait -n
