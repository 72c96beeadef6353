//! The built-in worker: an ordinary single-threaded epoll server, which knows nothing about maitred except the number
//! of its slot. The first bytes on a connection decide what it does:
//!
//! | first bytes | answer |
//! |---|---|
//! | `GET /burn/N HTTP/1.1` | after N microseconds of its processor's time |
//! | `GET /block/N HTTP/1.1` | after N microseconds in which it does nothing else, as one that waits for a database |
//! | `GET` anything else | at once |
//! | anything else | the same bytes again |
//!
//! Each HTTP answer has the header `Maitred-Slot`, from which the clients count for themselves.

use super::load::answer::SLOT_HEADER;
use crate::sys::process::limits;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Length of its accept queue.
const BACKLOG: i32 = 4096;
/// The longest head of a request that it reads.
const HEAD_MAX: usize = 8192;
/// The longest time that one request may burn, or block.
const BURN_MAX: Duration = Duration::from_secs(1);
/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// Serves on a port that the kernel chooses, until it is killed.
///
/// # Errors
/// Those of listening and of epoll.
pub fn serve() -> io::Result<()> {
    limits::raise_descriptor_limit()?;
    let listener = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    listener.set_reuse_address(true)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(BACKLOG)?;
    let listener = TcpListener::from(listener);
    let mut server = Server {
        set: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        connections: HashMap::new(),
        answers: Answers::new(&std::env::var("MAITRED_SLOT").unwrap_or_else(|_| "0".to_owned())),
    };
    server.set.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, listener.as_raw_fd() as u64))?;
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = match server.set.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..ready] {
            let fd = event.data() as RawFd;
            if fd == listener.as_raw_fd() {
                server.accept(&listener)?;
            } else if server.answer(fd) == After::Close {
                server.connections.remove(&fd);
            }
        }
    }
}

struct Server {
    set: Epoll,
    connections: HashMap<RawFd, Connection>,
    answers: Answers,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose end has not arrived yet.
    held: Vec<u8>,
}

/// What happens to a connection after it was served.
#[derive(PartialEq)]
enum After {
    Keep,
    Close,
}

impl Server {
    /// Takes all waiting connections.
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                },
            };
            stream.set_nonblocking(true)?;
            let fd = stream.as_raw_fd();
            self.set.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, fd as u64))?;
            self.connections.insert(fd, Connection { stream, held: Vec::new() });
        }
    }

    fn answer(&mut self, fd: RawFd) -> After {
        let Some(connection) = self.connections.get_mut(&fd) else { return After::Keep };
        let mut buffer = [0; HEAD_MAX];
        match connection.stream.read(&mut buffer) {
            Ok(0) => After::Close,
            Ok(n) => connection.serve(&buffer[..n], &self.answers).unwrap_or(After::Close),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => After::Keep,
            Err(_) => After::Close,
        }
    }
}

impl Connection {
    fn serve(&mut self, came: &[u8], answers: &Answers) -> io::Result<After> {
        let held = self.held.len();
        if held > 0 {
            self.held.extend_from_slice(came);
        }
        let bytes = if held > 0 { &self.held[..] } else { came };
        if !bytes.starts_with(b"GET "[..bytes.len().min(4)].as_ref()) {
            // Small enough for any socket buffer.
            self.stream.write_all(bytes)?;
            return Ok(After::Keep);
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => {
                if held == 0 {
                    self.held.extend_from_slice(came);
                }
                return Ok(After::Keep);
            }
            _ => return Ok(After::Close),
        }
        let asked = |what: &str| {
            let micros = request.path?.strip_prefix(what)?.parse().ok()?;
            Some(Duration::from_micros(micros).min(BURN_MAX))
        };
        if let Some(time) = asked("/burn/") {
            burn(time);
        }
        if let Some(time) = asked("/block/") {
            // The whole worker waits, and leaves the processor to other processes.
            std::thread::sleep(time);
        }
        let closes = request.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
        });
        self.held.clear();
        self.stream.write_all(if closes { &answers.last } else { &answers.more })?;
        Ok(if closes { After::Close } else { After::Keep })
    }
}

/// The answers, built once.
struct Answers {
    more: Vec<u8>,
    last: Vec<u8>,
}

impl Answers {
    fn new(slot: &str) -> Answers {
        let body = format!("slot {slot}, process {}\n", std::process::id());
        let answer = |connection| {
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{SLOT_HEADER}: {slot}\r\n\
                 Connection: {connection}\r\n\r\n{body}"
            )
            .into_bytes()
        };
        Answers { more: answer("keep-alive"), last: answer("close") }
    }
}

/// Uses the processor for this long.
fn burn(time: Duration) {
    let spent = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or(Duration::MAX);
    let until = spent() + time;
    while spent() < until {
        std::hint::spin_loop();
    }
}
