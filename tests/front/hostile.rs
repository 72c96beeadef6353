//! A worker that turned against its master and a stranger, both at once, drawn from a seed: the other workers' clients
//! do not notice, the master answers, keeps nothing and ends cleanly.
//!
//! `MAITRED_HOSTILE_SECONDS` makes it longer than the usual 20 seconds, `MAITRED_HOSTILE_SEED` repeats what was drawn
//! before, `MAITRED_HOSTILE_SHOW` shows what the hostile worker did.

use crate::support::*;
use nix::sys::signal::{SIGKILL, SIGTERM};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long it goes on.
const SECONDS: u64 = 20;
/// What an answer of the master may take; a freeze lasts for seconds or for ever.
const STATUS_MAX: Duration = Duration::from_secs(3);
/// What a client of the good slots may wait: one that the hostile worker does not take is rescued after a second, and
/// all of this shares the machine with other tests.
const CLIENT_MAX: Duration = Duration::from_secs(10);
/// How many clients ask again and again.
const CLIENTS: usize = 4;
/// From one request of a client to its next, so that other tests get some of the machine.
const PAUSE: Duration = Duration::from_millis(5);
/// Descriptors that the master may have more at the end, since some come and go.
const DESCRIPTORS_SLACK: usize = 8;
/// A listening socket, and a hand-off socket with what waits for a worker in it.
const DESCRIPTORS_PER_LISTENER: usize = 4;
/// Memory that the master may have more at the end: what an allocator keeps, and the log's lines on their way.
const MEMORY_SLACK: u64 = 48 << 20;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What clients met.
#[derive(Debug, Default)]
struct Met {
    answered: u64,
    /// The client's port, and what it met.
    failed: Vec<(u16, String)>,
    longest: Duration,
}

/// One request; the port from which it came.
fn ask(address: SocketAddr) -> Result<(), (u16, String)> {
    let mut stream =
        TcpStream::connect_timeout(&address, CLIENT_MAX).map_err(|error| (0, format!("connect: {error}")))?;
    let port = stream.local_addr().map_or(0, |own| own.port());
    let fail = |error: std::io::Error| (port, error.to_string());
    stream.set_read_timeout(Some(CLIENT_MAX)).map_err(fail)?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").map_err(fail)?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) if text.ends_with('\n') => Ok(()),
        Ok(_) => Err((port, format!("closed after {text:?}"))),
        Err(error) => Err(fail(error)),
    }
}

fn ask_until(address: SocketAddr, stop: &AtomicBool) -> Met {
    let met = Mutex::new(Met::default());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let came = ask(address);
                    let mut met = met.lock().unwrap();
                    match came {
                        Ok(()) => {
                            met.answered += 1;
                            // What the hostile worker leaves unanswered takes until the client gives up.
                            met.longest = met.longest.max(begun.elapsed());
                        }
                        Err(failed) => met.failed.push(failed),
                    }
                    drop(met);
                    // The rhythm of the clients; it synchronises nothing.
                    std::thread::sleep(PAUSE);
                }
            });
        }
    });
    met.into_inner().unwrap()
}

fn stranger(maitred: &Maitred, seed: u64, seconds: u64, address: SocketAddr) -> Child {
    // It may not read the project's directory, so it gets its program on the command line.
    let program = std::fs::read_to_string(root().join("tests/hostile/stranger.py")).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", &program, &maitred.child.id().to_string(), &seed.to_string(), &seconds.to_string()]);
    command.arg(&maitred.control).arg(address.to_string()).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    as_ordinary_user(&mut command);
    command.spawn().unwrap()
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Processes with this in their environment.
fn with_mark(mark: &str) -> Vec<i32> {
    let all =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let bears = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    all.filter(|pid| bears(pid) && runs(*pid)).collect()
}

/// Clients that the hostile worker got, by their ports.
fn got_by_hostile(directory: &Path) -> HashSet<u16> {
    let text = std::fs::read_to_string(directory.join("seen")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn status(maitred: &Maitred, during: &str) -> serde_json::Value {
    let begun = Instant::now();
    let status = maitred.status();
    assert!(begun.elapsed() < STATUS_MAX, "the status took {:?} {during}", begun.elapsed());
    status
}

#[test]
fn a_hostile_worker_and_a_stranger_harm_nobody_else() {
    let seconds = from_environment("MAITRED_HOSTILE_SECONDS").unwrap_or(SECONDS);
    let by_clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000;
    let seed = from_environment("MAITRED_HOSTILE_SEED").unwrap_or_else(by_clock);
    println!("MAITRED_HOSTILE_SEED={seed}");
    let directory = scratch("hostile");
    std::fs::create_dir(&directory).unwrap();
    let mark = format!("MAITRED_TEST_MARK={seed}-{}", std::process::id());
    let script = root().join("tests/hostile/worker.py");
    let seed_text = seed.to_string();
    let port = "{port}";
    let address = format!("127.0.0.1:{port}");
    let mut words = vec!["-w", "3", "-b", "127.0.0.1:0", "--adapter", "native", "--env", &mark, "--grace", "2s"];
    words.extend(["--max-restarts", "10000", "--", "python3", script.to_str().unwrap()]);
    words.extend([&*address, &*seed_text, directory.to_str().unwrap()]);
    let maitred = Maitred::start(&words).ready(3);
    let (pid, address) = (maitred.child.id(), maitred.address());
    // The memory that everything needs that is loaded once.
    assert_eq!(load(address, 200, CLIENTS).hung, 0);
    let (before, memory) = (descriptors(pid), resident(pid));
    let mut stranger = stranger(&maitred, seed, seconds, address);

    let stop = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let clients = scope.spawn(|| ask_until(address, &stop));
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            let status = status(&maitred, "under attack");
            for worker in &status["workers"].as_array().unwrap()[1..] {
                assert_eq!(
                    (&worker["state"], &worker["restarts"]),
                    (&"ready".into(), &0.into()),
                    "seed {seed}: {status:#}"
                );
            }
            // How often is looked during the attack, whose length is given; it synchronises nothing.
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(stopping);
        clients.join().unwrap()
    });
    let ended = wait_child(&mut stranger);
    assert!(ended.success(), "the stranger ended with {ended}");
    let got = got_by_hostile(&directory);
    let harmed: Vec<_> = met.failed.iter().filter(|(port, _)| !got.contains(port)).collect();
    println!(
        "{} answered, the longest after {:?}; {} failed at the hostile worker, {} elsewhere",
        met.answered,
        met.longest,
        met.failed.len() - harmed.len(),
        harmed.len()
    );
    assert!(met.answered > 0 && harmed.is_empty(), "seed {seed}: {harmed:?}");
    let said = maitred.output();
    let deeds: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(&format!("hostile {seed}/"))).map(|(_, what)| what).collect();
    let workers: HashSet<_> = deeds.iter().filter_map(|deed| deed.split_once(':')).map(|(worker, _)| worker).collect();
    println!("{} deeds of {} workers, {} clients at them", deeds.len(), workers.len(), got.len());
    if std::env::var_os("MAITRED_HOSTILE_SHOW").is_some() {
        println!("{}", deeds.join("\n"));
    }
    assert!(deeds.len() as u64 > seconds && !got.is_empty(), "seed {seed}: the hostile worker did nothing: {deeds:?}");

    // The next worker in the slot is a good one, and everything is as it was.
    std::fs::write(directory.join("calm"), "").unwrap();
    if let Some(hostile) = maitred.status()["workers"][0]["pid"].as_i64() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(hostile as i32), SIGKILL);
    }
    // After so many failures the slot would wait for longer than this test; a reload gives it another chance.
    maitred.told(&["reload"]);
    maitred.status_until(|status| {
        let ready = status["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "ready");
        // What the hostile worker asked for stays, since its successor may ask for it again; it is limited.
        let listeners = status["listeners"].as_array().unwrap().len() - 1;
        let waiting: u64 = per_worker(status, "queued").iter().sum();
        let most = before + DESCRIPTORS_SLACK + listeners * DESCRIPTORS_PER_LISTENER + waiting as usize;
        ready && descriptors(pid) <= most
    });
    let grown = resident(pid).saturating_sub(memory);
    assert!(grown < MEMORY_SLACK, "seed {seed}: the master has {grown} bytes more than before");
    assert_eq!(load(address, 100, CLIENTS).answered, 100);
    let begun = Instant::now();
    maitred.signal(SIGTERM);
    let (ended, output) = maitred.wait();
    assert_eq!(ended.code(), Some(0), "seed {seed}: {output}");
    println!("ended after {:?}, grown by {grown} bytes", begun.elapsed());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = with_mark(&mark);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "seed {seed}: {left:?} are left");
        std::thread::yield_now();
    }
}
