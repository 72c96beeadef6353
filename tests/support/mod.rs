//! What the integration tests share: the real binary with real workers, clients, and waiting for
//! events instead of sleeping. Everything that was started is killed when its value is dropped.

#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Long enough that only a hang meets it, on a loaded machine too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The directory of the sources.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary under test.
pub fn maitred() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
    // What the caller's shell has set must not change what is tested.
    for name in ["WEB_CONCURRENCY", "RUST_LOG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// A path that no other test uses.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Short: a socket's path must fit into 107 bytes.
    let dir = std::env::temp_dir().join(format!("maitred-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{number}-{name}"))
}

/// Whether an executable of this name is in `PATH`.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    // Some have their version in the name (php-fpm8.2).
    let versioned = |dir: &Path| {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).any(|name| {
            name.strip_prefix(program).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        })
    };
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file() || versioned(&dir))
}

/// Compiles a C program of `tests/workers` or `worker-examples` once and returns its path.
pub fn c_program(source: &str, compiler: &str, flags: &[&str]) -> String {
    static BUILT: Mutex<()> = Mutex::new(());
    static DONE: OnceLock<Mutex<Vec<PathBuf>>> = OnceLock::new();
    let _one = BUILT.lock().unwrap_or_else(|e| e.into_inner());
    let stem = Path::new(source).file_stem().unwrap().to_str().unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{stem}-{compiler}-{}-{}",
        flags.concat().replace('/', ""),
        std::process::id()
    ));
    let done = DONE.get_or_init(Mutex::default);
    if !done.lock().unwrap().contains(&out) {
        let built =
            Command::new(compiler).args(["-O2", "-Wall", "-o"]).arg(&out).args(flags).arg(root().join(source)).output();
        let built = built.unwrap_or_else(|e| panic!("{compiler}: {e}; install it with apt-get install gcc musl-tools"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        done.lock().unwrap().push(out.clone());
    }
    out.to_str().unwrap().to_owned()
}

/// The C test server.
pub fn server() -> String {
    c_program("tests/workers/server.c", "cc", &["-pthread"])
}

/// The same without a dynamic loader.
pub fn static_server() -> String {
    c_program("tests/workers/server.c", "cc", &["-pthread", "-static"])
}

/// An example program of this package, built when it is first needed.
pub fn example(name: &str) -> String {
    let directory = Path::new(env!("CARGO_BIN_EXE_maitred")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .args(["build", "--quiet", "--all-features", "--example", name])
        .arg("--target-dir")
        .arg(directory.parent().unwrap());
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    directory.join("examples").join(name).to_str().unwrap().to_owned()
}

/// A running master and what it logged.
pub struct Maitred {
    pub child: Child,
    pub control: PathBuf,
    log: Arc<(Mutex<Vec<Value>>, Condvar)>,
    other: Arc<Mutex<String>>,
    /// Output streams of the master that have ended.
    ended: Arc<AtomicUsize>,
}

impl Maitred {
    /// Starts `maitred ARGS`, with a control socket of its own and its log as JSON.
    pub fn start(args: &[&str]) -> Maitred {
        Maitred::start_as(maitred(), args)
    }

    /// The same with a prepared command.
    pub fn start_as(mut command: Command, args: &[&str]) -> Maitred {
        let control = scratch("control.sock");
        command.args(["run", "--log-format", "json", "--control"]).arg(&control).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log: Arc<(Mutex<Vec<Value>>, Condvar)> = Arc::default();
        let other: Arc<Mutex<String>> = Arc::default();
        let ended: Arc<AtomicUsize> = Arc::default();
        for stream in
            [Box::new(child.stderr.take().unwrap()) as Box<dyn Read + Send>, Box::new(child.stdout.take().unwrap())]
        {
            let (log, other, ended) = (Arc::clone(&log), Arc::clone(&other), Arc::clone(&ended));
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    match serde_json::from_str::<Value>(&line) {
                        Ok(entry) if entry.is_object() => {
                            log.0.lock().unwrap().push(entry);
                            log.1.notify_all();
                        }
                        _ => {
                            other.lock().unwrap().push_str(&(line + "\n"));
                            log.1.notify_all();
                        }
                    }
                }
                ended.fetch_add(1, Ordering::SeqCst);
                log.1.notify_all();
            });
        }
        Maitred { child, control, log, other, ended }
    }

    /// Waits until so many log entries with this message have come.
    pub fn wait_for(&self, message: &str, count: usize) -> Vec<Value> {
        let mut lines = self.log.0.lock().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found: Vec<_> = lines.iter().filter(|l| l["message"] == message).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let over = left.is_zero() || self.ended.load(Ordering::SeqCst) == 2;
            assert!(!over, "waited for {count}× {message:?}; log: {lines:#?}; output: {}", self.output());
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits until `workers` workers serve.
    pub fn ready(self, workers: usize) -> Maitred {
        self.wait_for("worker ready", workers);
        self
    }

    /// What was logged with this message so far.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.log.0.lock().unwrap().iter().filter(|l| l["message"] == message).cloned().collect()
    }

    /// What was written that is not the log.
    pub fn output(&self) -> String {
        self.other.lock().unwrap().clone()
    }

    /// `maitred status --json`, asked for on the socket.
    pub fn status(&self) -> Value {
        let mut socket = UnixStream::connect(&self.control)
            .unwrap_or_else(|error| panic!("{}: {error}; output: {}", self.control.display(), self.output()));
        socket.write_all(b"{\"command\":\"status\"}\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Asks for the status until it is as wanted; the master is asked as fast as it answers.
    pub fn status_until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "status never became as wanted: {status:#}");
            std::thread::yield_now();
        }
    }

    /// Waits until `workers` workers serve that many addresses each, and returns the status.
    pub fn status_until_served(&self, addresses: usize, workers: usize) -> Value {
        self.wait_for("worker ready", addresses * workers);
        self.status_until(|status| status["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready"))
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        tcp(&self.status()["listeners"][0]["address"])
    }

    /// The process in a slot.
    pub fn pid(&self, slot: usize) -> i32 {
        self.status()["workers"][slot]["pid"].as_i64().expect("a worker sits there") as i32
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.child.id() as i32, signal);
    }

    /// Waits for the end of the master.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_child(&mut self.child);
        // The reader threads see the end of the pipes right after; unless somebody survived who
        // holds them, which the caller will find.
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.ended.load(Ordering::SeqCst) < 2 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        (status, self.output())
    }

    /// Stops gracefully; the exit code must be 0 and nothing may be lost.
    pub fn stop(self) {
        let status = self.status();
        assert_eq!(status["totals"]["lost"], 0, "{status:#}");
        self.signal(nix::sys::signal::SIGTERM);
        let (status, output) = self.wait();
        assert_eq!(status.code(), Some(0), "{output}");
    }
}

impl Drop for Maitred {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child with patience.
pub fn wait_child(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "process {} did not end", child.id());
        std::thread::yield_now();
    }
}

/// Runs the binary to its end.
pub fn run(args: &[&str]) -> Output {
    maitred().args(args).stdin(Stdio::null()).output().unwrap()
}

/// An address of `status`.
pub fn tcp(address: &Value) -> SocketAddr {
    address.as_str().unwrap().strip_prefix("tcp:").expect("a TCP address").parse().unwrap()
}

/// Sends a signal.
pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Whether a process exists and is no zombie.
pub fn runs(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']),
        Err(_) => false,
    }
}

/// Waits until a process is gone.
pub fn wait_gone(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} lives on");
        std::thread::yield_now();
    }
}

/// Makes the command run as an ordinary user when the tests run as root.
pub fn as_ordinary_user(command: &mut Command) {
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
}

/// A copy of a program where an ordinary user can run it, beside control sockets that it can make.
pub fn for_ordinary_user(program: &str) -> String {
    let copy = scratch("program");
    std::fs::copy(program, &copy).unwrap();
    // As the directory for temporary files is: other tests are in there, too.
    std::fs::set_permissions(copy.parent().unwrap(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    copy.to_str().unwrap().to_owned()
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Body(String),
    Failed(String),
    /// No answer within [`PATIENCE`].
    Hung,
}

/// One HTTP request on a connection of its own.
pub fn request(address: SocketAddr) -> Reply {
    request_within(address, PATIENCE)
}

pub fn request_within(address: SocketAddr, patience: Duration) -> Reply {
    match TcpStream::connect_timeout(&address, patience) {
        Ok(stream) => exchange(stream, patience),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Reply::Hung,
        Err(error) => Reply::Failed(format!("connect: {error}")),
    }
}

/// One HTTP request on this connection.
pub fn exchange(mut stream: TcpStream, patience: Duration) -> Reply {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut text = Vec::new();
    let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    match sent.and_then(|()| stream.read_to_end(&mut text)) {
        Ok(0) => Reply::Failed("closed without an answer".into()),
        Ok(_) => match String::from_utf8_lossy(&text).split_once("\r\n\r\n") {
            Some((_, body)) => Reply::Body(body.to_owned()),
            None => Reply::Failed(format!("half an answer: {:?}", String::from_utf8_lossy(&text))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Reply::Hung,
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// One HTTP request through a Unix socket.
pub fn ask_unix(path: &Path) -> Reply {
    let mut text = String::new();
    let asked = UnixStream::connect(path).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        stream.read_to_string(&mut text)
    });
    match asked {
        Ok(n) if n > 0 => Reply::Body(text),
        Ok(_) => Reply::Failed("closed without an answer".into()),
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// What became of many requests.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub failed: Vec<String>,
    pub hung: u64,
}

/// `clients` closed-loop clients with `connections` requests in all, one per connection.
pub fn load(address: SocketAddr, connections: u64, clients: usize) -> Tally {
    load_with(connections, clients, &|| request(address))
}

pub fn load_with(connections: u64, clients: usize, request: &(dyn Fn() -> Reply + Sync)) -> Tally {
    let begun = AtomicU64::new(0);
    closed_loop(clients, request, &|| begun.fetch_add(1, Ordering::Relaxed) < connections)
}

/// Clients that ask until `stop` is set.
pub fn load_until(address: SocketAddr, clients: usize, stop: &AtomicBool) -> Tally {
    closed_loop(clients, &|| request(address), &|| !stop.load(Ordering::Relaxed))
}

fn closed_loop(clients: usize, request: &(dyn Fn() -> Reply + Sync), more: &(dyn Fn() -> bool + Sync)) -> Tally {
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                // One hung request says enough; waiting for more of them would take for ever.
                while tally.lock().unwrap().hung == 0 && more() {
                    let reply = request();
                    let mut tally = tally.lock().unwrap();
                    match reply {
                        Reply::Body(_) => tally.answered += 1,
                        Reply::Failed(why) => tally.failed.push(why),
                        Reply::Hung => tally.hung += 1,
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// The workers' values of one field.
pub fn per_worker(status: &Value, field: &str) -> Vec<u64> {
    status["workers"].as_array().unwrap().iter().map(|w| w[field].as_u64().unwrap()).collect()
}

/// Every connection is answered, every slot got its exact share, and all were taken.
pub fn check_exact_spread(maitred: &Maitred, connections: u64, clients: usize) {
    let address = maitred.address();
    check_exact_spread_with(maitred, connections, clients, &|| request(address));
}

pub fn check_exact_spread_with(
    maitred: &Maitred,
    connections: u64,
    clients: usize,
    request: &(dyn Fn() -> Reply + Sync),
) {
    let before = maitred.status();
    let tally = load_with(connections, clients, request);
    assert_eq!((tally.answered, tally.hung), (connections, 0), "{:?}", tally.failed);
    let status = maitred.status_until(|s| per_worker(s, "queued").iter().all(|&q| q == 0));
    let shares: Vec<u64> =
        per_worker(&status, "handed").iter().zip(per_worker(&before, "handed")).map(|(a, b)| a - b).collect();
    let (max, min) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
    assert_eq!(shares.iter().sum::<u64>(), connections, "{status:#}");
    assert!(max - min <= 1, "{shares:?}");
    assert_eq!(per_worker(&status, "taken"), per_worker(&status, "handed"), "{status:#}");
    assert_eq!(status["totals"]["lost"], 0);
}
