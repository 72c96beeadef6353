//! The servers, how they are started, and how they are asked.

use crate::fastcgi;
use crate::support::*;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// A program and the package that has it.
type Needs = (&'static str, &'static str);

const NODE: Needs = ("node", "apt-get install nodejs");
const NPM: Needs = ("npm", "apt-get install npm");
const GUNICORN: Needs = ("gunicorn", "apt-get install gunicorn");
const UVICORN: Needs = ("uvicorn", "apt-get install uvicorn");
const HYPERCORN: Needs = ("hypercorn", "apt-get install python3-hypercorn");
const DAPHNE: Needs = ("daphne", "apt-get install daphne");
const PUMA: Needs = ("puma", "apt-get install puma");
const UNICORN: Needs = ("unicorn", "apt-get install unicorn");
const UWSGI: Needs = ("uwsgi", "apt-get install uwsgi-core uwsgi-plugin-python3");
const NGINX: Needs = ("nginx", "apt-get install nginx-light");
const HAPROXY: Needs = ("haproxy", "apt-get install haproxy");
const REDIS: Needs = ("redis-server", "apt-get install redis-server");
const PHP_CGI: Needs = ("php-cgi", "apt-get install php-cgi");
const PHP_FPM: Needs = ("php-fpm", "apt-get install php-fpm");
const JAVA: Needs = ("java", "apt-get install default-jdk-headless");
const MUSL: Needs = ("musl-gcc", "apt-get install musl-tools");
const GO: Needs = ("go", "apt-get install golang-go");
const CADDY: Needs = ("caddy", "apt-get install caddy");

/// Makes a command, when it is needed.
pub type Words = Box<dyn Fn() -> Vec<String> + Send + Sync>;
/// One request.
pub type Ask = Box<dyn Fn(SocketAddr) -> Reply + Send + Sync>;

/// One server with one adapter.
pub struct Case {
    /// Its name in the table.
    pub server: String,
    /// The adapter; for presets `inherit PRESET`.
    pub adapter: String,
    /// What must be installed.
    pub needs: Vec<Needs>,
    /// The modes that suit the adapter.
    pub modes: Vec<String>,
    /// The command, made when it is needed.
    pub command: Words,
    /// One request.
    pub ask: Ask,
    /// How much it is asked.
    pub effort: Effort,
}

/// How much a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Enough to see in each mode that promises it that every slot gets its exact share.
    Full,
    /// Enough to see that in hand-off mode, and that everybody is answered.
    Light,
}

const ALL: &[&str] = &["handoff", "shared", "kernel"];
const HANDOFF: &[&str] = &["handoff"];
const SOCKETS: &[&str] = &["shared", "kernel"];

type Make = fn() -> Vec<String>;

/// Every server with every adapter that suits it.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add =
        |server: &str, adapter: &str, needs: &[Needs], modes: &[&str], command: Make, ask: fn(SocketAddr) -> Reply| {
            let (server, adapter, needs, modes) = (server.to_owned(), adapter.to_owned(), needs.to_vec(), words(modes));
            let (command, ask) = (Box::new(command), Box::new(ask));
            cases.push(Case { server, adapter, needs, modes, command, ask, effort: Effort::Full });
        };
    add("Node http", "preload", &[NODE], ALL, node, request);
    add("Node http", "seccomp", &[NODE], ALL, node, request);
    add("Node behind npm start", "preload", &[NODE, NPM], ALL, npm, request);
    add("Python http.server", "preload", &[], ALL, || python("worker-examples/unaware.py"), request);
    add("Python asyncio", "preload", &[], ALL, || python("tests/workers/asyncio_server.py"), request);
    add("Python asyncio", "seccomp", &[], ALL, || python("tests/workers/asyncio_server.py"), request);
    add("gunicorn sync", "preload", &[GUNICORN], ALL, || gunicorn("sync", true), request);
    add("gunicorn gthread", "preload", &[GUNICORN], ALL, || gunicorn("gthread", true), request);
    add("gunicorn sync", "inherit gunicorn", &[GUNICORN], SOCKETS, || gunicorn("sync", false), request);
    add("uvicorn", "preload", &[UVICORN], ALL, || uvicorn(&["--port", "{port}"]), request);
    add("uvicorn", "inherit uvicorn", &[UVICORN], SOCKETS, || uvicorn(&[]), request);
    add("hypercorn", "preload", &[HYPERCORN], ALL, || asgi("hypercorn --bind 127.0.0.1:{port}"), request);
    add("hypercorn", "inherit hypercorn", &[HYPERCORN], SOCKETS, || asgi("hypercorn"), request);
    add("daphne", "preload", &[DAPHNE], ALL, || asgi("daphne -v 0 -b 127.0.0.1 -p {port}"), request);
    add("daphne", "inherit daphne", &[DAPHNE], SOCKETS, || asgi("daphne -v 0"), request);
    add("puma", "preload", &[PUMA], ALL, || puma(&["-b", "tcp://127.0.0.1:{port}"]), request);
    add("puma", "inherit puma", &[PUMA], SOCKETS, || puma(&[]), request);
    add("unicorn", "preload", &[UNICORN], ALL, || unicorn(&["-l", "127.0.0.1:{port}"]), request);
    add("unicorn", "inherit unicorn", &[UNICORN], SOCKETS, || unicorn(&[]), request);
    // It speaks a protocol of its own, not HTTP, on sockets of LISTEN_FDS: `--preset uwsgi` is for that.
    add("uWSGI", "preload", &[UWSGI], HANDOFF, || uwsgi(&["--http-socket", "127.0.0.1:{port}"]), request);
    add("uWSGI", "inherit uwsgi", &[UWSGI], SOCKETS, || uwsgi(&[]), request);
    add("nginx", "preload", &[NGINX], ALL, || nginx("", "on"), request);
    add("nginx, one process", "preload", &[NGINX], ALL, || nginx("", "off"), request);
    add("nginx, reuseport", "preload", &[NGINX], ALL, || nginx("reuseport", "on"), request);
    add("nginx", "inherit nginx", &[NGINX], SOCKETS, || nginx("", "on"), request);
    add("HAProxy", "preload", &[HAPROXY], ALL, || haproxy("127.0.0.1:{port}"), request);
    add("HAProxy", "inherit haproxy", &[HAPROXY], SOCKETS, || haproxy("fd@{fd}"), request);
    add("Redis", "preload", &[REDIS], ALL, redis, redis_ping);
    add("PHP-FPM", "preload", &[PHP_FPM], ALL, fpm, fastcgi::ask);
    add("PHP-FPM", "inherit php-fpm", &[PHP_FPM], SOCKETS, fpm, fastcgi::ask);
    add("php-cgi", "inherit fastcgi", &[PHP_CGI], SOCKETS, || words(&["php-cgi"]), fastcgi::ask);
    add("Java HttpServer", "preload", &[JAVA], ALL, java, request);
    add("C, musl, dynamic", "preload", &[MUSL], ALL, || c_server("musl-gcc", &["-pthread"]), request);
    add("C, musl, static", "seccomp", &[MUSL], ALL, || c_server("musl-gcc", &["-pthread", "-static"]), request);
    add("C, glibc, static", "seccomp", &[], ALL, || c_server("cc", &["-pthread", "-static"]), request);
    add("Go net/http, static", "seccomp", &[GO], ALL, || go("0"), request);
    add("Go net/http, with cgo", "seccomp", &[GO], ALL, || go("1"), request);
    add("Caddy (Go)", "seccomp", &[CADDY], ALL, caddy, request);
    add("Rust tokio, dynamic", "preload", &[], ALL, || vec![example("unaware_tokio"), "{port}".into()], request);
    cases
}

/// Servers that bind port 0 by themselves; with musl, whose loader is another one than glibc's, in every
/// way of waiting.
pub fn on_demand() -> Vec<(&'static str, &'static [Needs], Words)> {
    let at_port_0 = |words: Vec<String>| words.into_iter().map(|word| word.replace("{port}", "0")).collect();
    let musl =
        |way: &'static str| move || words(&[&c_program("tests/workers/server.c", "musl-gcc", &["-pthread"]), way, "0"]);
    vec![
        ("node", &[NODE], Box::new(move || at_port_0(node()))),
        ("npm", &[NODE, NPM], Box::new(move || at_port_0(npm()))),
        ("musl_block", &[MUSL], Box::new(musl("block"))),
        ("musl_poll", &[MUSL], Box::new(musl("poll"))),
        ("musl_epoll", &[MUSL], Box::new(musl("epoll"))),
        ("musl_early", &[MUSL], Box::new(musl("early"))),
    ]
}

fn source(path: &str) -> String {
    root().join(path).to_str().unwrap().to_owned()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn node() -> Vec<String> {
    words(&["node", &source("worker-examples/unaware.js"), "{port}"])
}

fn npm() -> Vec<String> {
    let dir = scratch("npm");
    std::fs::create_dir_all(&dir).unwrap();
    let script = source("worker-examples/unaware.js");
    std::fs::write(dir.join("package.json"), format!("{{\"scripts\":{{\"start\":\"node {script}\"}}}}")).unwrap();
    words(&["npm", "--prefix", dir.to_str().unwrap(), "--silent", "start", "--", "{port}"])
}

fn python(script: &str) -> Vec<String> {
    words(&["python3", &source(script), "{port}"])
}

fn gunicorn(class: &str, binds: bool) -> Vec<String> {
    let dir = source("tests/workers");
    let mut command =
        words(&["gunicorn", "-w", "2", "-k", class, "--chdir", &dir, "--log-level", "warning", "wsgi:wsgi"]);
    if binds {
        command.extend(words(&["-b", "127.0.0.1:{port}"]));
    }
    command
}

fn uvicorn(port: &[&str]) -> Vec<String> {
    let dir = source("tests/workers");
    words(&[&["uvicorn", "--app-dir", &dir, "--log-level", "warning", "wsgi:asgi"], port].concat())
}

/// A server that looks for the application where it is started; what a preset adds comes before it.
fn asgi(command: &str) -> Vec<String> {
    let line = format!("cd {} && exec {command} \"$@\" wsgi:asgi", source("tests/workers"));
    words(&["sh", "-c", &line, "sh"])
}

fn puma(bind: &[&str]) -> Vec<String> {
    words(&[&["puma", "-q", "-t", "1:4", &source("tests/workers/config.ru")], bind].concat())
}

fn unicorn(listen: &[&str]) -> Vec<String> {
    words(&[&["unicorn", &source("tests/workers/config.ru")], listen].concat())
}

fn uwsgi(socket: &[&str]) -> Vec<String> {
    let dir = source("tests/workers");
    words(
        &[&["uwsgi", "--plugin", "python3", "--chdir", &dir, "--module", "wsgi:wsgi", "--disable-logging"], socket]
            .concat(),
    )
}

/// A copy of a configuration with some words replaced.
fn configuration(name: &str, replace: &[(&str, &str)]) -> PathBuf {
    let text = std::fs::read_to_string(source(&format!("tests/workers/{name}"))).unwrap();
    let path = scratch(name);
    let text = replace.iter().fold(text, |text, (from, to)| text.replace(from, to));
    std::fs::write(&path, text).unwrap();
    path
}

/// A shell line that puts the port into a copy of a configuration, for each slot, and starts a server
/// with it.
fn with_port(configuration: &std::path::Path, directory: &std::path::Path, start: &str) -> Vec<String> {
    let (from, dir) = (configuration.display(), format!("{}-$MAITRED_SLOT", directory.display()));
    let line = format!(
        "PATH=$PATH:/usr/sbin; mkdir -p {dir} && sed s,PORT,{{port}},g\\;s,DIR,{dir},g {from} > {dir}/conf && {}",
        start.replace("CONF", &format!("{dir}/conf"))
    );
    words(&["sh", "-c", &line])
}

fn nginx(reuseport: &str, master: &str) -> Vec<String> {
    let template = configuration("nginx.conf", &[("REUSEPORT", reuseport)]);
    let start = format!("exec nginx -c CONF -e stderr -g 'daemon off; master_process {master};'");
    with_port(&template, &scratch("nginx"), &start)
}

fn haproxy(bind: &str) -> Vec<String> {
    let file = scratch("haproxy.cfg");
    let file = format!("{}-$MAITRED_SLOT", file.display());
    let line = format!(
        "PATH=$PATH:/usr/sbin; sed s,BIND,{bind}, {} > {file} && exec haproxy -db -f {file}",
        source("tests/workers/haproxy.cfg")
    );
    words(&["sh", "-c", &line])
}

fn fpm() -> Vec<String> {
    let as_root = if nix::unistd::geteuid().is_root() { "-R" } else { "" };
    let start = format!("exec $(ls /usr/sbin/php-fpm* | tail -n 1) {as_root} -F -y CONF");
    with_port(&configuration("fpm.conf", &[]), &scratch("fpm"), &start)
}

fn caddy() -> Vec<String> {
    let start = "XDG_DATA_HOME=${TMPDIR:-/tmp} exec caddy run --adapter caddyfile --config CONF";
    with_port(&configuration("Caddyfile", &[]), &scratch("caddy"), start)
}

fn redis() -> Vec<String> {
    words(&["redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
}

fn redis_ping(address: SocketAddr) -> Reply {
    talk(address, "PING\r\n", "+PONG\r\n")
}

fn java() -> Vec<String> {
    let dir = scratch("java");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("Server.java");
    let program = "import com.sun.net.httpserver.HttpServer; import java.net.InetSocketAddress;
public class Server { public static void main(String[] a) throws Exception {
  HttpServer server = HttpServer.create(new InetSocketAddress(\"127.0.0.1\", Integer.parseInt(a[0])), 511);
  byte[] body = (\"slot \" + System.getenv(\"MAITRED_SLOT\") + \"\\n\").getBytes();
  server.createContext(\"/\", e -> { e.sendResponseHeaders(200, body.length); e.getResponseBody().write(body); e.close(); });
  server.start(); } }";
    std::fs::write(&file, program).unwrap();
    words(&["java", file.to_str().unwrap(), "{port}"])
}

fn c_server(compiler: &str, flags: &[&str]) -> Vec<String> {
    let program = c_program("tests/workers/server.c", compiler, flags);
    words(&[&program, "epoll", "{port}", "supervised"])
}

/// Builds the Go server, with or without the C library.
fn go(cgo: &str) -> Vec<String> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING.lock().unwrap_or_else(|e| e.into_inner());
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("httpserver-{cgo}-{}", std::process::id()));
    if !out.exists() {
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
        let mut build = Command::new("go");
        build.env("CGO_ENABLED", cgo).env("GOCACHE", cache).env("GOFLAGS", "-mod=mod").args(["build", "-o"]);
        let built = build.arg(&out).arg(source("tests/workers/httpserver.go")).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    words(&[out.to_str().unwrap(), "127.0.0.1:{port}"])
}
