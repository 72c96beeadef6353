//! What the integration tests share: the real binary with real workers, clients, and waiting for
//! events instead of sleeping. Everything that was started is killed when its value is dropped.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod clients;
pub mod manual;

pub use clients::*;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

/// Long enough that only a hang meets it, on a loaded machine too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// So many lines of the log are shown when a test fails.
const SHOWN_LINES: usize = 100;

/// The directory of the sources.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary under test.
pub fn maitred() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
    // What the caller's shell has set must not change what is tested.
    for name in ["WEB_CONCURRENCY", "MAITRED_LOG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// The same, executed by another program.
pub fn maitred_by(program: &[&str]) -> Command {
    let plain = maitred();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(plain.get_program());
    for (name, _) in plain.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command
}

/// A path that no other test uses.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    static SWEPT: Once = Once::new();
    SWEPT.call_once(remove_what_earlier_runs_left);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Short: a socket's path must fit into 107 bytes.
    let dir = std::env::temp_dir().join(format!("maitred-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{number}-{name}"))
}

/// A test process that is killed cannot clean up after itself, and a copy of the binary for each upgrade adds up to
/// gigabytes: the next run removes the directories of processes that are gone.
fn remove_what_earlier_runs_left() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix("maitred-test-")) else { continue };
        if pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another user's stays; two runs at once may both try.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A directory of files that switch what `pages.py` does.
pub struct Switches(PathBuf);

impl Switches {
    pub fn new() -> Switches {
        let dir = scratch("switches");
        std::fs::create_dir_all(&dir).unwrap();
        Switches(dir)
    }

    pub fn on(&self, name: &str) {
        std::fs::write(self.0.join(name), "").unwrap();
    }

    pub fn off(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }

    /// Waits until a server has made this file.
    pub fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.0.join(name).exists() {
            assert!(Instant::now() < deadline, "there is never a file {name}");
            std::thread::yield_now();
        }
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// The words that start `tests/workers/pages.py` with these switches.
    pub fn pages<'a>(&'a self, options: &[&'a str]) -> Vec<&'a str> {
        static SCRIPT: OnceLock<String> = OnceLock::new();
        let script = SCRIPT.get_or_init(|| root().join("tests/workers/pages.py").to_str().unwrap().to_owned());
        [&["python3", script, "127.0.0.1:0", self.path()], options].concat()
    }
}

/// Sets a flag at its end, also when a test panics: clients that wait for the flag would go on for ever.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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

    /// The same with a prepared command. Servers under test take port 0 and share it, where the test does not
    /// bind the address first.
    pub fn start_as(command: Command, args: &[&str]) -> Maitred {
        let binds = args.iter().take_while(|arg| **arg != "--").any(|arg| ["-b", "--bind"].contains(arg));
        let shared: &[&str] = if binds { &[] } else { &["--share-port-zero"] };
        Maitred::start_exactly_as(command, &[shared, args].concat())
    }

    /// Starts `maitred ARGS` with no option that is not given.
    pub fn start_exactly(args: &[&str]) -> Maitred {
        Maitred::start_exactly_as(maitred(), args)
    }

    fn start_exactly_as(mut command: Command, args: &[&str]) -> Maitred {
        let control = scratch("control.sock");
        command.args(["run", "--log-format", "json", "--control"]).arg(&control).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                // A copy of the binary: another test's child has its descriptor for writing until it executes its program.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                started => break started.unwrap(),
            }
        };
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

    /// The log so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.0.lock().unwrap().clone()
    }

    /// What was written that is not the log.
    pub fn output(&self) -> String {
        self.other.lock().unwrap().clone()
    }

    /// Waits until that contains these words.
    pub fn wait_for_output(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output().contains(words) {
            assert!(Instant::now() < deadline, "no {words:?} in {}", self.output());
            std::thread::yield_now();
        }
    }

    /// `maitred status --json`, asked for on the socket. Where others crowd it, a client that was slow to ask is told to ask
    /// again.
    pub fn status(&self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.answer();
            if answer["error"].as_str().is_none_or(|error| !error.ends_with("ask again")) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer}");
        }
    }

    fn answer(&self) -> Value {
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

    /// Runs `maitred WORDS --control PATH` to its end.
    pub fn tell(&self, words: &[&str]) -> Output {
        maitred().args(words).arg("--control").arg(&self.control).stdin(Stdio::null()).output().unwrap()
    }

    /// The same for a command that must succeed; what it said.
    pub fn told(&self, words: &[&str]) -> String {
        let output = self.tell(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{words:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same for a command that the master must refuse, or fail to carry out; why.
    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.tell(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &[][..]), "{words:?}: {said}");
        said.strip_prefix("maitred: ").unwrap_or_else(|| panic!("{words:?}: {said}")).trim_end().to_owned()
    }

    /// The processes in all slots.
    pub fn pids(&self) -> Vec<i32> {
        let status = self.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().map(|w| w["pid"].as_i64().expect("a worker sits there") as i32).collect()
    }

    /// Does something while clients ask again and again; none may fail or hang.
    pub fn under_load<T>(&self, clients: usize, doing: impl FnOnce() -> T) -> T {
        let (tally, done) = self.with_load(clients, doing);
        assert_eq!((tally.failed.len(), tally.hung), (0, 0), "{:?} of {}", tally.failed, tally.answered);
        assert!(tally.answered > 0);
        done
    }

    /// The same, where some may fail.
    pub fn with_load<T>(&self, clients: usize, doing: impl FnOnce() -> T) -> (Tally, T) {
        let (address, stop) = (self.address(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let stopping = Stop(&stop);
            let clients = scope.spawn(|| load_until(address, clients, &stop));
            let done = doing();
            drop(stopping);
            (clients.join().unwrap(), done)
        })
    }

    /// The same while one worker after the other is killed. Also returns how many were.
    pub fn with_kills(&self, clients: usize, every: Duration, length: Duration) -> (Tally, usize) {
        self.with_load(clients, || {
            let begun = Instant::now();
            let mut kills = 0usize;
            while begun.elapsed() < length {
                // The rhythm of the kills; it synchronises nothing.
                std::thread::sleep(every);
                let status = self.status();
                let victims: Vec<_> =
                    status["workers"].as_array().unwrap().iter().filter_map(|w| w["pid"].as_i64()).collect();
                if let Some(&pid) = victims.get(kills % victims.len().max(1)) {
                    // It may have ended by itself.
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid as i32),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                    kills += 1;
                }
            }
            kills
        })
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
        assert_eq!(status["totals"]["unaccounted"], 0, "{status:#}");
        self.signal(nix::sys::signal::SIGTERM);
        let (status, output) = self.wait();
        assert_eq!(status.code(), Some(0), "{output}");
    }
}

impl Drop for Maitred {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            println!("the last that maitred {} logged:", self.child.id());
            lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).for_each(|line| println!("{line}"));
        } else {
            let unaccounted = self.logged("connections are in no sum, or in two; please report this");
            assert!(unaccounted.is_empty(), "{unaccounted:#?}");
        }
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

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A copy of a program where an ordinary user can run it, beside control sockets that it can make.
pub fn for_ordinary_user(program: &str) -> String {
    let copy = scratch("program");
    std::fs::copy(program, &copy).unwrap();
    // As the directory for temporary files is: other tests are in there, too.
    std::fs::set_permissions(copy.parent().unwrap(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    copy.to_str().unwrap().to_owned()
}
