//! Real servers, unmodified, four workers, hand-off mode: every connection is answered and the
//! spread over the slots is exact.
//!
//! A test whose program is missing fails under `CI` with the install hint. Elsewhere it is shown as
//! ignored, with the hint, and can be asked for by name with `--ignored`.

mod support;

use libtest_mimic::{Arguments, Trial};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use support::*;

fn main() {
    let trials = vec![
        trial("node_http", &[NODE], || serve(&["node", &source("worker-examples/unaware.js"), "0"], 1)),
        trial("node_http_behind_npm", &[NODE, NPM], npm),
        trial("gunicorn_with_workers_of_its_own", &[GUNICORN], || serve_bound(&gunicorn("sync"), 4)),
        trial("gunicorn_with_threads", &[GUNICORN], || serve_bound(&gunicorn("gthread"), 4)),
        trial("uvicorn", &[UVICORN], uvicorn),
        trial("nginx_with_a_master_process", &[NGINX], || nginx("", "on")),
        trial("nginx_without_a_master_process", &[NGINX], || nginx("", "off")),
        trial("nginx_with_reuseport", &[NGINX], || nginx("reuseport", "on")),
        trial("redis_server", &[REDIS], redis),
        trial("java_http_server", &[JAVA], java),
        trial("c_server_with_musl", &[MUSL], musl),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A program and the package that has it.
type Needs = (&'static str, &'static str);

const NODE: Needs = ("node", "apt-get install nodejs");
const NPM: Needs = ("npm", "apt-get install npm");
const GUNICORN: Needs = ("gunicorn", "apt-get install gunicorn");
const UVICORN: Needs = ("uvicorn", "apt-get install uvicorn");
const NGINX: Needs = ("nginx", "apt-get install nginx-light");
const REDIS: Needs = ("redis-server", "apt-get install redis-server");
const JAVA: Needs = ("java", "apt-get install default-jdk-headless");
const MUSL: Needs = ("musl-gcc", "apt-get install musl-tools");

fn trial(name: &str, needs: &'static [Needs], run: impl FnOnce() + Send + 'static) -> Trial {
    let missing = needs.iter().find(|(program, _)| !has(program));
    let in_ci = std::env::var_os("CI").is_some();
    let kind = missing.map_or(String::new(), |(program, how)| format!("no {program}: {how}"));
    Trial::test(name, move || {
        if let Some((program, how)) = missing {
            return Err(format!("{program} is missing; install it with: {how}").into());
        }
        run();
        Ok(())
    })
    .with_kind(kind)
    .with_ignored_flag(missing.is_some() && !in_ci)
}

fn source(path: &str) -> String {
    root().join(path).to_str().unwrap().to_owned()
}

/// The server binds what the kernel chooses; `times` is how often a worker says that it listens.
fn serve(command: &[&str], times: usize) {
    let maitred = Maitred::start(&[&["-w", "4", "--"], command].concat()).ready(4 * times);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

/// The server is told its port. Workers of its own may say that they listen, too.
fn serve_bound(command: &[String], ready: usize) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let maitred = Maitred::start(&[&["-w", "4", "-b", "127.0.0.1:0", "--"], &words[..]].concat()).ready(ready);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn gunicorn(class: &str) -> Vec<String> {
    let dir = source("tests/workers");
    let command = [
        "gunicorn",
        "-w",
        "2",
        "-k",
        class,
        "--chdir",
        &dir,
        "-b",
        "127.0.0.1:{port}",
        "--log-level",
        "warning",
        "wsgi:wsgi",
    ];
    words(&command)
}

fn uvicorn() {
    let dir = source("tests/workers");
    serve_bound(&words(&["uvicorn", "--app-dir", &dir, "--port", "{port}", "--log-level", "warning", "wsgi:asgi"]), 4);
}

fn npm() {
    let dir = scratch("npm");
    std::fs::create_dir_all(&dir).unwrap();
    let script = source("worker-examples/unaware.js");
    std::fs::write(dir.join("package.json"), format!("{{\"scripts\":{{\"start\":\"node {script} 0\"}}}}")).unwrap();
    serve(&["npm", "--prefix", dir.to_str().unwrap(), "--silent", "start"], 1);
}

fn nginx(reuseport: &str, master: &str) {
    let dir = scratch("nginx");
    let template = std::fs::read_to_string(source("tests/workers/nginx.conf")).unwrap().replace("REUSEPORT", reuseport);
    let template_path = scratch("nginx.conf");
    std::fs::write(&template_path, template).unwrap();
    let dir = dir.to_str().unwrap();
    // Each worker has its own directory and its own copy of the configuration.
    let line = format!(
        "PATH=$PATH:/usr/sbin; mkdir -p {dir}-$MAITRED_SLOT && sed s,PORT,{{port}},g\\;s,DIR,{dir}-$MAITRED_SLOT,g {} > {dir}-$MAITRED_SLOT/conf \
         && exec nginx -c {dir}-$MAITRED_SLOT/conf -e stderr -g 'daemon off; master_process {master};'",
        template_path.display()
    );
    // With `reuseport` nginx opens one socket for each of its workers.
    let ready = if reuseport.is_empty() || master == "off" { 4 } else { 8 };
    serve_bound(&words(&["sh", "-c", &line]), ready);
}

fn redis() {
    let command = ["redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"];
    let args = [&["-w", "4", "-b", "127.0.0.1:0", "--"][..], &command].concat();
    let maitred = Maitred::start(&args).ready(4);
    let address = maitred.address();
    check_exact_spread_with(&maitred, 400, 16, &|| redis_ping(address));
    maitred.stop();
}

fn redis_ping(address: SocketAddr) -> Reply {
    let mut answer = [0; 7];
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut answer)
    });
    match asked {
        Ok(()) if &answer == b"+PONG\r\n" => Reply::Body("PONG".into()),
        Ok(()) => Reply::Failed(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Reply::Failed(error.to_string()),
    }
}

fn java() {
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
    serve_bound(&words(&["java", file.to_str().unwrap(), "{port}"]), 4);
}

fn musl() {
    // Dynamically linked to musl; its loader is another one than glibc's.
    let program = c_program("tests/workers/server.c", "musl-gcc", &[]);
    for mode in ["block", "poll", "epoll", "early"] {
        serve(&[&program, mode, "0"], 1);
    }
}
