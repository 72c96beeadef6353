//! File transfer: the server opens a listener for each download, for the client of one session.

use crate::case::*;
use crate::sockets::{free_ports, local};
use crate::support::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

pub fn all() -> Vec<Case> {
    [
        in_each_mode("pyftpdlib, passive ports by the kernel", &[PACKAGES], BOTH, pyftpdlib),
        in_each_mode("vsftpd, passive range, --private, 4 workers", &[VSFTPD], BOTH, vsftpd_private),
        in_each_mode("vsftpd, passive range, 1 worker", &[VSFTPD], BOTH, vsftpd_alone),
    ]
    .into_iter()
    .flatten()
    .filter(|case| !is_beyond_seccomp(case))
    .collect()
}

/// pyftpdlib registers its socket with epoll before it binds it. Seen from outside only the socket can be replaced,
/// and not what epoll was told about it; where it stays the listener itself, nothing is replaced.
fn is_beyond_seccomp(case: &Case) -> bool {
    case.program.starts_with("pyftpdlib") && case.way.adapter == "seccomp" && case.way.mode != "shared"
}

/// Rounds in which every session downloads once.
const ROUNDS: usize = 6;

fn pyftpdlib(way: Way) -> String {
    let (files, port) = (files(3), free_ports(1));
    let script = program("ftp.py");
    let words = [&packaged("python3"), &script, &port.to_string(), files.to_str().unwrap()];
    let maitred = start(way, &["-w", "3"], &words);
    all_ready(&maitred, 3);
    let right = downloads(local(port), 3);
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1, "a passive port is shared");
    maitred.stop();
    all_of(right, 3 * ROUNDS)
}

/// Fewer ports than transfers, so that some are asked for again. vsftpd draws one nine times and then gives up
/// (`vsf_privop_pasv_listen`): with three of eight in use by the other sessions that happens once in a thousand tests.
const RANGE: u16 = 16;

fn vsftpd_private(way: Way) -> String {
    let (port, first) = (free_ports(1), free_ports(RANGE));
    let range = format!(":{first}-{}", first + RANGE - 1);
    vsftpd(way, &["-w", "4", "--private", &range], 4, port, first)
}

fn vsftpd_alone(way: Way) -> String {
    let (port, first) = (free_ports(1), free_ports(RANGE));
    vsftpd(way, &["-w", "1"], 1, port, first)
}

fn vsftpd(way: Way, options: &[&str], workers: usize, port: u16, first: u16) -> String {
    let (files, file) = (files(4), scratch("vsftpd.conf"));
    let configuration = std::fs::read_to_string(program("vsftpd.conf")).unwrap();
    let replaced = configuration
        .replace("PORT", &port.to_string())
        .replace("FIRST", &first.to_string())
        .replace("LAST", &(first + RANGE - 1).to_string())
        .replace("FILES", files.to_str().unwrap());
    std::fs::write(&file, replaced).unwrap();
    let line = format!("PATH=$PATH:/usr/sbin; exec vsftpd {}", file.display());
    let maitred = start(way, options, &["sh", "-c", &line]);
    all_ready(&maitred, workers);
    let right = downloads(local(port), 4);
    maitred.stop();
    all_of(right, 4 * ROUNDS)
}

/// A directory in which each session has a file of its own.
fn files(sessions: usize) -> PathBuf {
    let dir = scratch("files");
    std::fs::create_dir_all(&dir).unwrap();
    (0..sessions).for_each(|session| std::fs::write(name(&dir, session), content(session)).unwrap());
    dir
}

fn name(dir: &Path, session: usize) -> PathBuf {
    dir.join(format!("file-{session}"))
}

fn content(session: usize) -> String {
    format!("this belongs to session {session}\n")
}

/// Sessions that download at the same time; how many downloads were the session's own file.
fn downloads(server: SocketAddr, count: usize) -> usize {
    let mut sessions: Vec<Session> = (0..count).map(|_| Session::begin(server)).collect();
    let mut right = 0;
    for _ in 0..ROUNDS {
        let passive: Vec<SocketAddr> = sessions.iter_mut().map(Session::passive).collect();
        let connect = |address: &SocketAddr| TcpStream::connect_timeout(address, PATIENCE).unwrap();
        let data: Vec<TcpStream> = passive.iter().map(connect).collect();
        for (number, session) in sessions.iter_mut().enumerate() {
            session.send(&format!("RETR file-{number}"));
        }
        for (number, mut data) in data.into_iter().enumerate() {
            data.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            data.read_to_string(&mut text).unwrap_or_else(|error| panic!("download of session {number}: {error}"));
            right += usize::from(text == content(number));
        }
        sessions.iter_mut().for_each(Session::transferred);
    }
    for session in &mut sessions {
        session.ask("QUIT", "221");
    }
    right
}

/// The control connection of one client.
struct Session(BufReader<TcpStream>);

impl Session {
    fn begin(server: SocketAddr) -> Session {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Session(BufReader::new(stream));
        session.expect("220");
        session.ask("USER anonymous", "331");
        session.ask("PASS guest", "230");
        session.ask("TYPE I", "200");
        session
    }

    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// The line that ends an answer: a code and a space.
    fn expect(&mut self, code: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).unwrap_or_else(|error| panic!("waited for {code}: {error}"));
            assert!(read > 0, "the server closed; waited for {code}");
            if line.as_bytes().get(3) == Some(&b' ') {
                assert!(line.starts_with(code), "waited for {code}: {line}");
                return line;
            }
        }
    }

    fn ask(&mut self, line: &str, code: &str) -> String {
        self.send(line);
        self.expect(code)
    }

    /// `PASV`: the address for the next download.
    fn passive(&mut self) -> SocketAddr {
        let answer = self.ask("PASV", "227");
        let numbers = answer.split_once('(').and_then(|(_, rest)| Some(rest.split_once(')')?.0)).unwrap();
        let numbers: Vec<u16> = numbers.split(',').map(|number| number.parse().unwrap()).collect();
        local(numbers[4] << 8 | numbers[5])
    }

    /// A download begins and ends.
    fn transferred(&mut self) {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("150") || line.starts_with("125"), "{line}");
        self.expect("226");
    }
}
