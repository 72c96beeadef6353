//! The front against its peers on this machine, side by side in one run: connections per second,
//! evenness, processor time per connection in the front, memory, time to the first answer.
//!
//! `cargo bench --bench front` prints a summary. With `MAITRED_BENCH_RESULTS=DIR` it also writes
//! `summary.txt` and `raw.json` there. `MAITRED_BENCH_CONNECTIONS` and `MAITRED_BENCH_ROUNDS`
//! change the size; `cargo test --bench front` runs it small. Needs Node and a C compiler.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::ClockId;
use nix::unistd::Pid;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
const WORKERS: &str = "4";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

fn main() {
    // `cargo test --benches` only asks whether it still works.
    let small = !std::env::args().any(|arg| arg == "--bench");
    let number = |name: &str, full: u64, small_size: u64| {
        let given = std::env::var(name).ok().and_then(|value| value.parse().ok());
        given.unwrap_or(if small { small_size } else { full })
    };
    let connections = number("MAITRED_BENCH_CONNECTIONS", 60_000, 200);
    let rounds = number("MAITRED_BENCH_ROUNDS", 5, 1) as usize;
    let epoll_server = c_program("worker-examples/unaware.c");
    let accept_close = c_program("benches/peers/accept-close.c");

    let subjects = [
        Subject::maitred(
            "node ×4, maitred handoff",
            "handoff",
            WORKERS,
            &["node", "worker-examples/unaware.js", "{port}"],
        ),
        Subject::cluster("node ×4, cluster round-robin", "rr"),
        Subject::cluster("node ×4, cluster shared handle", "none"),
        Subject::maitred("epoll ×4, maitred handoff", "handoff", WORKERS, &[&epoll_server, "{port}"]),
        Subject::maitred("epoll ×4, maitred shared", "shared", WORKERS, &[&epoll_server, "{port}"]),
        Subject { name: "accept and close", kind: Kind::Plain, command: vec![accept_close], env: None },
    ];
    let mut report = Report::default();
    // Interleaved, so that a slow minute of the machine hits all alike.
    for round in 0..rounds {
        for subject in &subjects {
            let run = measure(subject, connections);
            eprintln!(
                "round {round}: {:32} {:8.0}/s  front {:6.2} µs/connection",
                subject.name, run.rate, run.front_cpu_us
            );
            report.add(subject.name, run);
        }
    }
    let memory = memory(&epoll_server, connections);
    let start: Vec<_> = (0..rounds).map(|_| start_up()).collect();
    let (text, raw) = report.finish(connections, rounds, &memory, &start);
    println!("{text}");
    if let Some(dir) = std::env::var_os("MAITRED_BENCH_RESULTS").map(PathBuf::from) {
        std::fs::create_dir_all(&dir).expect("results directory");
        std::fs::write(dir.join("summary.txt"), &text).expect("summary");
        std::fs::write(dir.join("raw.json"), serde_json::to_string_pretty(&raw).expect("JSON") + "\n")
            .expect("raw data");
    }
}

/// What is measured.
struct Subject {
    name: &'static str,
    kind: Kind,
    command: Vec<String>,
    env: Option<(&'static str, &'static str)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// maitred in this mode, which tells who served what.
    Maitred(&'static str, &'static str),
    /// Anything that prints `ready` and takes its port as the last argument.
    Plain,
}

impl Subject {
    fn maitred(name: &'static str, mode: &'static str, workers: &'static str, command: &[&str]) -> Subject {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Subject { name, kind: Kind::Maitred(mode, workers), command, env: None }
    }

    fn cluster(name: &'static str, policy: &'static str) -> Subject {
        let command = ["node", "benches/peers/cluster.js", WORKERS].map(str::to_owned).to_vec();
        Subject { name, kind: Kind::Plain, command, env: Some(("NODE_CLUSTER_SCHED_POLICY", policy)) }
    }

    /// Starts it and waits until all workers serve.
    fn start(&self) -> Running {
        let port = free_port();
        let control = std::env::temp_dir().join(format!("maitred-bench-{}.sock", std::process::id()));
        let mut command = match self.kind {
            Kind::Plain => {
                let mut command = Command::new(&self.command[0]);
                command.args(&self.command[1..]).arg(port.to_string());
                command
            }
            Kind::Maitred(mode, workers) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
                command.args(["run", "--mode", mode, "-w", workers, "--log-format", "json", "--prefix", "never"]);
                let words = self.command.iter().map(|word| word.replace("{port}", &port.to_string()));
                command.arg("--control").arg(&control).arg("--").args(words);
                command
            }
        };
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.envs(self.env);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}; is it installed?", self.command));
        let (stream, wanted): (Box<dyn Read + Send>, _) = match self.kind {
            Kind::Plain => (Box::new(child.stdout.take().expect("piped")), 1),
            Kind::Maitred(_, workers) => {
                (Box::new(child.stderr.take().expect("piped")), workers.parse().expect("number"))
            }
        };
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let seen = lines.by_ref().filter(|line| line.contains("ready")).take(wanted).count();
        assert_eq!(seen, wanted, "{} did not get ready", self.name);
        // Read on, so that nobody waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Running {
            child,
            address: ([127, 0, 0, 1], port).into(),
            control: matches!(self.kind, Kind::Maitred(..)).then_some(control),
        }
    }
}

struct Running {
    child: Child,
    address: SocketAddr,
    control: Option<PathBuf>,
}

impl Running {
    fn status(&self) -> Option<Value> {
        let mut socket = UnixStream::connect(self.control.as_ref()?).expect("control socket");
        socket.write_all(b"{\"command\":\"status\"}\n").expect("ask");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("answer");
        serde_json::from_str(&text).ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One run of one subject.
struct Run {
    rate: f64,
    front_cpu_us: f64,
    handed: Vec<u64>,
}

fn measure(subject: &Subject, connections: u64) -> Run {
    let running = subject.start();
    let answers = if subject.name == "accept and close" { Answers::None } else { Answers::Whole };
    drive(running.address, connections / 20 + 1, answers);
    // The status first: it costs the front something, too.
    let handed = handed(running.status().as_ref());
    let cpu = cpu_ns(running.child.id());
    let begun = Instant::now();
    drive(running.address, connections, answers);
    let took = begun.elapsed();
    let spent = cpu_ns(running.child.id()) - cpu;
    let after = self::handed(running.status().as_ref());
    Run {
        rate: connections as f64 / took.as_secs_f64(),
        front_cpu_us: spent as f64 / 1e3 / connections as f64,
        handed: after.iter().zip(&handed).map(|(a, b)| a - b).collect(),
    }
}

fn handed(status: Option<&Value>) -> Vec<u64> {
    let workers = status.and_then(|status| status["workers"].as_array()).into_iter().flatten();
    workers.filter_map(|worker| worker["handed"].as_u64()).collect()
}

/// Closed-loop clients on one epoll set: connect, ask, wait for the server's end, read, again. Every
/// connection must be answered whole, unless the server is one that only closes.
///
/// The client shares the two cores with what it measures, so it does as little as can be: one event
/// and one read for each connection.
fn drive(address: SocketAddr, connections: u64, answers: Answers) {
    let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
    let mut sockets: Vec<Option<Socket>> = Vec::new();
    let (mut begun, mut ended) = (0, 0);
    let open = |key: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("socket");
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => panic!("connect: {error}"),
            _ => {}
        }
        // On loopback the handshake is over when `connect` returns.
        let _ = (&socket).write(REQUEST);
        set.add(&socket, EpollEvent::new(EpollFlags::EPOLLRDHUP, key as u64)).expect("epoll");
        Some(socket)
    };
    for key in 0..CLIENTS.min(connections as usize) {
        sockets.push(open(key));
        begun += 1;
    }
    let mut events = [EpollEvent::empty(); CLIENTS];
    let mut buffer = [0u8; 4096];
    while ended < connections {
        let ready = set.wait(&mut events, EpollTimeout::from(30_000u16)).expect("epoll");
        assert!(ready > 0, "a connection hung: {ended} of {connections} ended");
        for event in &events[..ready] {
            let key = event.data() as usize;
            let read = sockets[key].as_ref().expect("open").read(&mut buffer);
            let answered = read.is_ok_and(|n| buffer[..n].starts_with(b"HTTP/1.1 200") && buffer[..n].ends_with(b"\n"));
            assert_eq!(answered, answers == Answers::Whole, "connection {ended} of {connections}");
            ended += 1;
            sockets[key] = None;
            if begun < connections {
                sockets[key] = open(key);
                begun += 1;
            }
        }
    }
}

/// What a subject does with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answers {
    /// Answers the request and closes.
    Whole,
    /// Only closes.
    None,
}

/// Processor time of a process with all its threads, ended ones too, by the kernel's own clock.
fn cpu_ns(pid: u32) -> u64 {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32)).expect("a process's clock");
    let time = clock.now().expect("a process's clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Resident memory of the master with 8 workers after 100 000 and 200 000 connections.
fn memory(epoll_server: &str, connections: u64) -> Value {
    let each = if connections < 1000 { connections } else { 100_000 };
    let running = Subject::maitred("memory", "handoff", "8", &[epoll_server, "{port}"]).start();
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.child.id())).expect("process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("number")
    };
    let fresh = rss();
    drive(running.address, each, Answers::Whole);
    let first = rss();
    drive(running.address, each, Answers::Whole);
    json!({ "connections": [0, each, 2 * each], "rss_kib": [fresh, first, rss()] })
}

/// Milliseconds to the first answer: the worker alone, and behind maitred.
fn start_up() -> Value {
    let alone = first_answer(Command::new("node"), &[]);
    let behind = first_answer(Command::new(env!("CARGO_BIN_EXE_maitred")), &["run", "-w", "1", "-q", "--", "node"]);
    json!({ "alone_ms": alone, "behind_ms": behind })
}

fn first_answer(mut command: Command, words: &[&str]) -> f64 {
    let port = free_port();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(words).args(["worker-examples/unaware.js", &port.to_string()]);
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("node");
    let answered = loop {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            std::thread::yield_now();
            continue;
        };
        let mut text = Vec::new();
        if stream.write_all(REQUEST).and_then(|()| stream.read_to_end(&mut text)).is_ok() && !text.is_empty() {
            break begun.elapsed();
        }
    };
    let _ = nix::sys::signal::kill(Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM);
    let _ = child.wait();
    answered.as_secs_f64() * 1e3
}

#[derive(Default)]
struct Report {
    runs: Vec<(&'static str, Vec<Run>)>,
}

impl Report {
    fn add(&mut self, name: &'static str, run: Run) {
        match self.runs.iter_mut().find(|(n, _)| *n == name) {
            Some((_, runs)) => runs.push(run),
            None => self.runs.push((name, vec![run])),
        }
    }

    fn median(&self, name: &str, of: fn(&Run) -> f64) -> f64 {
        let runs = &self.runs.iter().find(|(n, _)| *n == name).expect("measured").1;
        median(runs.iter().map(of).collect())
    }

    fn finish(&self, connections: u64, rounds: usize, memory: &Value, start: &[Value]) -> (String, Value) {
        let mut text = format!(
            "{connections} connections a run, {CLIENTS} closed-loop clients, one request per connection, {rounds} interleaved \
             rounds, medians\nmachine: {}\ncommand: cargo bench --bench front\n\n{:34} {:>10} {:>14} {:>9}  {}\n",
            machine(),
            "",
            "per second",
            "front µs/conn",
            "max−min",
            "(per second: min … max)"
        );
        let mut raw = serde_json::Map::new();
        for (name, runs) in &self.runs {
            let spread = runs.iter().filter_map(|run| Some(run.handed.iter().max()? - run.handed.iter().min()?)).max();
            let spread = spread.filter(|_| name.contains("handoff")).map_or("–".to_owned(), |s| s.to_string());
            let rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
            let (low, high) =
                (rates.iter().copied().fold(f64::MAX, f64::min), rates.iter().copied().fold(0.0, f64::max));
            let (rate, cpu) = (self.median(name, |run| run.rate), self.median(name, |run| run.front_cpu_us));
            let _ = writeln!(text, "{name:34} {rate:10.0} {cpu:14.2} {spread:>9}  ({low:.0} … {high:.0})");
            let each =
                |run: &Run| json!({ "per_second": run.rate, "front_cpu_us": run.front_cpu_us, "handed": run.handed });
            raw.insert((*name).to_owned(), runs.iter().map(each).collect());
        }
        let rate = |name: &str| self.median(name, |run| run.rate);
        let cpu = |name: &str| self.median(name, |run| run.front_cpu_us);
        let start_extra =
            median(start.iter().filter_map(|s| Some(s["behind_ms"].as_f64()? - s["alone_ms"].as_f64()?)).collect());
        let (node, rr, none) =
            ("node ×4, maitred handoff", "node ×4, cluster round-robin", "node ×4, cluster shared handle");
        let (handoff, shared, least) = ("epoll ×4, maitred handoff", "epoll ×4, maitred shared", "accept and close");
        let _ = writeln!(
            text,
            "\nrate, node handoff / cluster round-robin   {:.3}  (wanted: ≥ 1.4)",
            rate(node) / rate(rr)
        );
        let _ = writeln!(
            text,
            "rate, node handoff / cluster shared handle {:.3}  (wanted: ≥ 0.95)",
            rate(node) / rate(none)
        );
        let _ =
            writeln!(text, "front CPU, maitred / Node's primary        {:.3}  (wanted: ≤ 0.4)", cpu(node) / cpu(rr));
        let _ = writeln!(
            text,
            "rate, epoll handoff / shared               {:.3}  (wanted: ≥ 0.95)",
            rate(handoff) / rate(shared)
        );
        let _ = writeln!(
            text,
            "front CPU, hand-off / accept and close     {:.3}  (wanted: ≤ 1.15)",
            cpu(handoff) / cpu(least)
        );
        let _ = writeln!(
            text,
            "resident KiB after connections             {} after {}  (wanted: ≤ 12288, no growth)",
            memory["rss_kib"], memory["connections"]
        );
        let _ = writeln!(text, "first answer later than alone              {start_extra:.1} ms  (wanted: ≤ 50)");
        let raw = json!({ "machine": machine(), "connections": connections, "clients": CLIENTS, "runs": raw, "memory": memory, "start_up": start });
        (text, raw)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let node =
        Command::new("node").arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    format!(
        "{cores} cores, {model}, Linux {}, Node {}",
        read("/proc/sys/kernel/osrelease").trim(),
        node.unwrap_or_default()
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn c_program(source: &str) -> String {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Path::new(source).file_stem().expect("a file name"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let status = Command::new("cc").args(["-O2", "-o"]).arg(&out).arg(source).status().expect("a C compiler");
    assert!(status.success(), "the C compiler failed");
    out.to_str().expect("UTF-8").to_owned()
}
