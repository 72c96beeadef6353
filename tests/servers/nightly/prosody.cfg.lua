run_as_root = true
daemonize = false
pidfile = "DIR/pid"
data_path = "DIR"
interfaces = { "127.0.0.1" }
c2s_ports = { PORT }
modules_enabled = { "saslauth" }
modules_disabled = { "s2s" }
c2s_require_encryption = false
authentication = "anonymous"
log = { warn = "*console" }
VirtualHost "localhost"
