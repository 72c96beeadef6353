//! What a supervised worker is told of a socket: its name, its peer's, and what kind of socket it is.

use super::Supervised;
use super::socket::{HandoffSocket, Known};
use crate::front::incoming::TakenBack;
use crate::sys::foreign;
use crate::sys::seccomp::{Call, Name};
use crate::wire::peer;
use nix::errno::Errno;
use std::io;

impl Supervised {
    /// Writes the peer's address where `accept` wants it.
    pub(super) fn tell_peer(&self, call: &Call, socket: &HandoffSocket, taken: &TakenBack) -> Result<(), Errno> {
        match peer::decode(taken.peer()) {
            Some(peer) => {
                let (bytes, length) = peer::encode(peer::in_family(peer, socket.family));
                self.write_name(call, bytes.get(..length).unwrap_or_default())
            }
            None => self.write_name(call, taken.peer()),
        }
    }

    /// `getsockname`, which for a hand-off socket must tell the address that it serves.
    pub(super) fn name(&self, call: &Call) {
        // What a thread was just given is a connection: Go asks for the name of each.
        if self.given.take() == Some((call.thread, call.descriptor())) {
            return self.notifier().pass(call);
        }
        match self.socket(call) {
            Some(socket) => {
                let written = self.write_name(call, &socket.name);
                self.notifier().answer(call, written.map(|()| 0));
            }
            None => self.notifier().pass(call),
        }
    }

    /// Whether the worker called `bind` on the socket that a call is about, and not `listen` yet.
    fn is_only_bound(&self, call: &Call) -> bool {
        let Ok(Some(inode)) = foreign::socket_inode(call.thread, call.descriptor()) else { return false };
        matches!(self.known.borrow().get(&inode), Some(Known::Bound(_) | Known::Prepared { .. }))
    }

    /// `getsockopt`: a hand-off socket must look like a listening TCP socket.
    pub(super) fn kind(&self, call: &Call) {
        let whether_it_listens = call.args[2] as i32 == libc::SO_ACCEPTCONN;
        if whether_it_listens && self.is_only_bound(call) {
            // It may be a socket on which other workers listen already.
            let written = self.write_with_length(call, call.args[3], call.args[4], &0i32.to_ne_bytes());
            return self.notifier().answer(call, written.map(|()| 0));
        }
        let Some(socket) = self.socket(call) else { return self.notifier().pass(call) };
        let unix = i32::from(socket.family) == libc::AF_UNIX;
        let value = match call.args[2] as i32 {
            libc::SO_ACCEPTCONN => 1,
            libc::SO_TYPE => libc::SOCK_STREAM,
            libc::SO_DOMAIN => i32::from(socket.family),
            libc::SO_PROTOCOL if unix => 0,
            libc::SO_PROTOCOL => libc::IPPROTO_TCP,
            _ => return self.notifier().pass(call),
        };
        let written = self.write_with_length(call, call.args[3], call.args[4], &value.to_ne_bytes());
        self.notifier().answer(call, written.map(|()| 0));
    }

    /// Writes a socket address to the second and its length to the third argument, cut to the room
    /// that the caller has.
    fn write_name(&self, call: &Call, name: &[u8]) -> Result<(), Errno> {
        let (at, length_at) = (call.args[1], call.args[2]);
        if at == 0 || length_at == 0 {
            // The caller does not want the address, or made a mistake that getsockname reports.
            return if call.name == Name::GetSockName { Err(Errno::EFAULT) } else { Ok(()) };
        }
        self.write_with_length(call, at, length_at, name)
    }

    /// Writes bytes and their number, as all calls do that return something of varying length.
    fn write_with_length(&self, call: &Call, at: u64, length_at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let fault = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EFAULT));
        let mut room = [0; 4];
        foreign::read_memory(call.thread, length_at, &mut room).map_err(fault)?;
        if !self.notifier().waits(call) {
            return Err(Errno::ESRCH);
        }
        let room = u32::from_ne_bytes(room) as usize;
        let length = (bytes.len() as u32).to_ne_bytes();
        foreign::write_memory(call.thread, [(at, bytes.get(..room).unwrap_or(bytes)), (length_at, &length)])
            .map_err(fault)
    }
}
