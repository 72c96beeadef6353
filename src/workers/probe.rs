//! Probes the health of one certain worker: the master makes a connection with itself, and hands the far end to that
//! worker like any other connection.

use crate::config::life::Probe;
use crate::front::handoff::Handoff;
use crate::sys::fd::Sent;
use crate::sys::socket::listen;
use crate::sys::socket::own_pair::{self, OwnPair};
use crate::sys::watch;
use crate::wire::address::Address;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// Longest head of an answer.
const HEAD_MAX: usize = 16 * 1024;
/// Headers of an answer that are read.
const HEADERS_MAX: usize = 64;
/// How often to check whether a connection was taken; nothing reports that for a single one.
const LOOK: Duration = Duration::from_millis(5);

/// Why a worker is not well.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// It answered with another status than 2xx or 3xx.
    #[error("it answered with status {0}")]
    Status(u16),
    /// It closed the connection.
    #[error("it closed the connection without an answer")]
    Closed,
    /// What it answered is not HTTP.
    #[error("its answer is no HTTP")]
    NoHttp,
    /// It did not answer in time.
    #[error("it gave no answer within {}", humantime::format_duration(*.0))]
    Late(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

/// What a probe found.
#[derive(Debug)]
pub enum Found {
    /// The worker is well.
    Well,
    /// It is not.
    Unwell(Unwell),
    /// Nothing: it could not be asked, for a reason that is not the worker's.
    NotAsked,
}

/// Where a worker can be probed: one of the sockets on which it accepts, and the address that it serves there. That
/// socket stands for all of them.
pub type Target = Rc<RefCell<Option<(Rc<Handoff>, Address)>>>;

/// Probes a worker.
pub async fn ask(target: &Target, probe: &Probe, patience: Duration) -> Found {
    let Some((handoff, address)) = target.borrow().clone() else { return Found::NotAsked };
    let (handoff, address) = (&handoff, &address);
    if !handoff.has_room() && handoff.queued() > 0 {
        // It has enough to do. Other checks show whether it does that.
        return Found::NotAsked;
    }
    let Ok(OwnPair { ours, theirs, peer }) = own_pair::connect(address) else { return Found::NotAsked };
    // How many it will have taken when it has taken this one.
    let turn = handoff.taken() + u64::from(handoff.queued()) + 1;
    if !matches!(handoff.send_own(theirs.as_fd(), listen::peer_bytes(&peer)), Ok(Sent::Sent)) {
        return Found::NotAsked;
    }
    drop(theirs);
    let answered = async {
        match probe {
            Probe::Tcp => taken(handoff, turn).await,
            Probe::Http(path) => answer(ours, path).await,
        }
    };
    match timeout(patience, answered).await {
        Ok(Ok(())) => Found::Well,
        Ok(Err(unwell)) => Found::Unwell(unwell),
        Err(_) => Found::Unwell(Unwell::Late(patience)),
    }
}

async fn taken(handoff: &Handoff, turn: u64) -> Result<(), Unwell> {
    while handoff.taken() < turn {
        sleep(LOOK).await;
    }
    Ok(())
}

/// Sends a request and reads the head of the answer.
async fn answer(connection: OwnedFd, path: &str) -> Result<(), Unwell> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: maitred/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    // It fits into an empty socket buffer.
    send(connection.as_raw_fd(), request.as_bytes(), MsgFlags::MSG_NOSIGNAL)
        .map_err(|errno| Unwell::Broken(errno.into()))?;
    let connection: AsyncFd<OwnedFd> = watch::readable(connection).map_err(Unwell::Broken)?;
    let mut head = Vec::new();
    loop {
        let mut ready = connection.readable().await.map_err(Unwell::Broken)?;
        let mut buffer = [0; 2048];
        match nix::unistd::read(connection.get_ref(), &mut buffer) {
            Ok(0) => return Err(Unwell::Closed),
            Ok(read) => head.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(errno) => return Err(Unwell::Broken(errno.into())),
        }
        match status(&head)? {
            Some(200..=399) => return Ok(()),
            Some(other) => return Err(Unwell::Status(other)),
            None => {}
        }
    }
}

/// The status of an answer, when its head is complete. What comes before the real one (1xx) is skipped.
pub fn status(mut head: &[u8]) -> Result<Option<u16>, Unwell> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(head) {
            Ok(httparse::Status::Complete(length)) => match answer.code {
                Some(100..=199) => head = head.get(length..).unwrap_or_default(),
                code => return Ok(code),
            },
            Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Unwell::NoHttp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_real_answer() {
        let read = |text: &str| status(text.as_bytes());
        assert!(matches!(read("HTTP/1.1 200 OK\r\n\r\n"), Ok(Some(200))));
        assert!(matches!(read("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n"), Ok(Some(500))));
        assert!(matches!(read("HTTP/1.1 20"), Ok(None)));
        assert!(matches!(read("SSH-2.0-OpenSSH\r\n"), Err(Unwell::NoHttp)));
    }
}
