#!/usr/bin/env bash
# maitred beside its peers, in front of the same worker and under the same load, in one report:
#
#   benches/peers.sh DIR [OPTIONS OF maitred bench]...
#
# writes DIR/peers.json, .csv, .html and plots. Node's cluster module is always measured; PM2, HAProxy,
# nginx with its stream module and gunicorn where they are installed, and it says what is missing.
# On Debian: apt-get install nodejs haproxy nginx libnginx-mod-stream gunicorn; npm install -g pm2
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,9s/^# \?//p' "$0" >&2; exit 2; }
dir=$1
shift
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin
cargo build --release --quiet
maitred=target/release/maitred
peers=benches/peers

args=(
  --peer "cluster round-robin=exec node $peers/cluster.js {workers} {port} ./server.js"
  --peer "cluster shared handle=NODE_CLUSTER_SCHED_POLICY=none exec node $peers/cluster.js {workers} {port} ./server.js"
)
has() { command -v "$1" >/dev/null || { echo "not measured: $1 is not installed" >&2; return 1; }; }
if has pm2-runtime; then
  args+=(--peer "PM2 cluster=PM2_HOME=\$(mktemp -d) exec pm2-runtime start $peers/server.js -i {workers}")
fi
if has haproxy; then args+=(--peer "HAProxy TCP=exec $peers/proxied.sh haproxy {workers} {port}"); fi
if has nginx; then
  if nginx -V 2>&1 | grep -q 'with-stream ' || find /usr/lib/nginx -name ngx_stream_module.so 2>/dev/null | grep -q .; then
    args+=(--peer "nginx stream=exec $peers/proxied.sh nginx {workers} {port}")
  else
    echo 'not measured: nginx has no stream module' >&2
  fi
fi
if has gunicorn; then
  app="gunicorn --chdir $peers -c $peers/gunicorn.conf.py --bind 127.0.0.1:{port}"
  args+=(--peer "gunicorn=exec $app -w {workers} wsgi:app")
  args+=(--peer "gunicorn behind maitred=exec $maitred run -q -w {workers} -- $app -w 1 wsgi:app")
fi
mkdir -p "$dir"
exec "$maitred" bench -w 4 --json "$dir/peers.json" --csv "$dir/peers.csv" --html "$dir/peers.html" --svg "$dir/peers" \
  "${args[@]}" "$@" -- node "$peers/server.js"
