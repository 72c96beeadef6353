//! Communication with the master: requests with answers, and notes without.
//!
//! The inherited control channel is one socket for all processes and threads of a worker, so the wrong one could
//! receive an answer on it. Each request therefore carries the socket for its answer. If a wrapper has closed the
//! channel, the shim reaches the master through its rendezvous, an abstract socket, with the worker's token.

use super::abi::*;
use super::settings;
use super::text::{PACKET_MAX, Packet, value};
use core::ffi::{c_int, c_long, c_void};
use core::ptr::null_mut;

/// How long `bind` or `listen` waits for the master. The master answers within a loop turn; longer means that it is
/// stopped, and the program then gets `ETIMEDOUT`.
const ANSWER_SECONDS: i64 = 30;
/// Attempts at a request whose descriptors the kernel refuses to pass, and the pause between two attempts, in
/// nanoseconds.
const IN_FLIGHT_ATTEMPTS: u32 = 250;
const IN_FLIGHT_PAUSE: i64 = 20_000_000;

/// The master's answer.
pub struct Answer {
    bytes: [u8; PACKET_MAX],
    len: usize,
    /// The descriptors that came with it, or -1 each.
    pub fds: [c_int; 2],
}

impl Answer {
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The errno of a refusal.
    pub fn error(&self) -> Option<c_int> {
        value(self.text(), "ERROR").and_then(|errno| errno.parse().ok())
    }

    /// Closes the descriptors of an answer that is not used.
    pub fn discard(&self) {
        self.fds.into_iter().filter(|fd| *fd >= 0).for_each(close);
    }
}

/// Sends a request, with the program's own socket if there is one, and waits for the answer. Errors are errno values.
pub fn request(packet: &mut Packet, own: Option<c_int>) -> Result<Answer, c_int> {
    if let Some(channel) = settings::channel() {
        let mut pair = [-1 as c_int; 2];
        let made = kernel!(nr::SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.as_mut_ptr());
        if made < 0 {
            return Err(-made as c_int);
        }
        packet.line("REPLY", format_args!("1"));
        let sent = match own {
            Some(own) => send(channel, packet, &[own, pair[1]], 0),
            None => send(channel, packet, &[pair[1]], 0),
        };
        close(pair[1]);
        let answer = sent.and_then(|()| wait(pair[0]));
        close(pair[0]);
        return answer;
    }
    packet.line("REPLY", format_args!("0"));
    let rendezvous = open_rendezvous(packet, own.as_slice())?;
    let answer = wait(rendezvous);
    close(rendezvous);
    answer
}

/// Sends the master a note; a failure to send is not worth failing the program's call.
pub fn tell(packet: &mut Packet) {
    match settings::channel() {
        // A note must not block the program when the master is slow: it is dropped instead.
        Some(channel) => drop(send(channel, packet, &[], MSG_DONTWAIT)),
        None => {
            if let Ok(rendezvous) = open_rendezvous(packet, &[]) {
                close(rendezvous);
            }
        }
    }
}

/// Connects to the master's abstract socket and sends the packet with the worker's token.
fn open_rendezvous(packet: &mut Packet, fds: &[c_int]) -> Result<c_int, c_int> {
    let (name, token) = settings::rendezvous().ok_or(ENOTCONN)?;
    let mut addr = [0u8; ADDRESS_MAX];
    if name.len() > 100 {
        return Err(EINVAL);
    }
    addr[..2].copy_from_slice(&AF_UNIX.to_ne_bytes());
    addr[3..3 + name.len()].copy_from_slice(name);
    let fd = kernel!(nr::SOCKET, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) as c_int;
    if fd < 0 {
        return Err(-fd);
    }
    packet.push(b"TOKEN=");
    packet.push(token);
    packet.push(b"\n");
    // When the backlog is full, the next connect waits (unix_stream_connect in net/unix/af_unix.c).
    let patience = TimeSpec { seconds: ANSWER_SECONDS, nanos: 0 };
    kernel!(nr::SETSOCKOPT, fd, SOL_SOCKET, SO_SNDTIMEO, &raw const patience, size_of::<TimeSpec>());
    let connected = kernel!(nr::CONNECT, fd, addr.as_ptr(), 3 + name.len());
    let connected = if connected == -c_long::from(EAGAIN) { -c_long::from(ETIMEDOUT) } else { connected };
    let result = if connected < 0 { Err(-connected as c_int) } else { send(fd, packet, fds, 0) };
    match result {
        Ok(()) => Ok(fd),
        Err(errno) => {
            close(fd);
            Err(errno)
        }
    }
}

/// Sends one packet with up to two descriptors.
fn send(socket: c_int, packet: &Packet, fds: &[c_int], flags: c_int) -> Result<(), c_int> {
    if !packet.complete() {
        return Err(EINVAL);
    }
    let bytes = packet.bytes();
    let mut iov = IoVec { base: bytes.as_ptr().cast_mut().cast(), len: bytes.len() };
    let mut rights = Rights { len: rights_len(fds.len()), level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [-1; 2] };
    rights.fds[..fds.len()].copy_from_slice(fds);
    let with_fds = !fds.is_empty();
    let message = MsgHdr {
        name: null_mut(),
        name_len: 0,
        iov: &raw mut iov,
        iov_len: 1,
        control: if with_fds { (&raw mut rights).cast::<c_void>() } else { null_mut() },
        control_len: if with_fds { rights.len.next_multiple_of(8) } else { 0 },
        flags: 0,
    };
    let mut attempts = 0;
    loop {
        match kernel!(nr::SENDMSG, socket, &raw const message, flags | MSG_NOSIGNAL) as c_int {
            n if n >= 0 => return Ok(()),
            n if -n == EINTR => {}
            // The user has too many descriptors in flight at this moment (unix(7)).
            n if -n == ETOOMANYREFS && attempts < IN_FLIGHT_ATTEMPTS => {
                attempts += 1;
                let mut pause = TimeSpec { seconds: 0, nanos: IN_FLIGHT_PAUSE };
                kernel!(nr::PPOLL, 0, 0, &raw mut pause, 0);
            }
            n => return Err(-n),
        }
    }
}

/// Waits for one packet.
fn wait(socket: c_int) -> Result<Answer, c_int> {
    let mut poll = PollFd { fd: socket, events: POLLIN, revents: 0 };
    // ppoll writes the remaining time into this, so an interrupted wait does not start over.
    let mut left = TimeSpec { seconds: ANSWER_SECONDS, nanos: 0 };
    loop {
        match kernel!(nr::PPOLL, &raw mut poll, 1, &raw mut left, 0) as c_int {
            0 => return Err(ETIMEDOUT),
            n if n > 0 => break,
            n if -n == EINTR => {}
            n => return Err(-n),
        }
    }
    let mut answer = Answer { bytes: [0; PACKET_MAX], len: 0, fds: [-1; 2] };
    let mut iov = IoVec { base: answer.bytes.as_mut_ptr().cast(), len: PACKET_MAX };
    let mut rights = Rights::default();
    let mut message = MsgHdr {
        name: null_mut(),
        name_len: 0,
        iov: &raw mut iov,
        iov_len: 1,
        control: (&raw mut rights).cast(),
        control_len: rights_len(2).next_multiple_of(8),
        flags: 0,
    };
    let n: c_long = kernel!(nr::RECVMSG, socket, &raw mut message, MSG_CMSG_CLOEXEC);
    if n < 0 {
        return Err(-n as c_int);
    }
    if rights.level == SOL_SOCKET && rights.kind == SCM_RIGHTS {
        let came = rights.len.saturating_sub(rights_len(0)) / 4;
        answer.fds[..came.min(2)].copy_from_slice(&rights.fds[..came.min(2)]);
    }
    if message.flags & MSG_CTRUNC != 0 {
        answer.discard();
        return Err(EMFILE);
    }
    answer.len = n as usize;
    // End of file: the master closed the socket without an answer, which it does only when it ends.
    if n == 0 { Err(ENOTCONN) } else { Ok(answer) }
}
