//! The supervised calls of one worker (the seccomp adapter): `accept` and `getsockname` are answered
//! here, at once; `bind` and `listen`, which concern the whole master, are reported to it.

mod answers;
pub mod names;
pub mod own_socket;
mod passing;
pub mod socket;

pub use passing::Passed;

use super::{Event, Events};
use crate::core::ids::WorkerId;
use crate::front::common::Common;
use crate::front::counters::count;
use crate::front::incoming::NotTaken;
use crate::front::incoming::TakenBack;
use crate::provoked::Kind;
use crate::sys::foreign;
use crate::sys::process::limits;
use crate::sys::seccomp::{Call, Name, Notifier, OnExec};
use crate::sys::{fd, watch};
use crate::wire::packet::RequestId;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use socket::{HandoffSocket, Known};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

/// Calls answered before other tasks of the master get their turn.
const BURST: u32 = 64;
/// Sockets that are remembered between `bind` and `listen`; the oldest is forgotten. A forgotten one is seen again when
/// it listens, unless we only said that it was bound.
const BOUND_MAX: usize = 1024;
/// Threads that may wait in `accept` on one socket at once. One more is told that there are too many files.
const WAITING_MAX: usize = 4096;
/// This close to its limit of descriptors, the master makes room before it takes a connection, which would be lost
/// without a free number.
const FD_MARGIN: u64 = 64;

/// The supervision of one worker.
#[derive(Debug)]
pub struct Supervised {
    worker: WorkerId,
    notifier: AsyncFd<Notifier>,
    common: Rc<Common>,
    known: RefCell<HashMap<u64, Known>>,
    /// Inodes of the worker's own sockets that the master's have replaced, and the request of each: a process that
    /// inherited one before still has it.
    copies: RefCell<HashMap<u64, RequestId>>,
    /// Inodes of bound sockets, the oldest first.
    bound: RefCell<VecDeque<u64>>,
    sockets: RefCell<HashMap<u64, Rc<HandoffSocket>>>,
    next_request: RefCell<RequestId>,
    /// The last connection that was given, with the thread that got it and its number there.
    given: Cell<Option<(Pid, RawFd)>>,
    /// Connections that the worker had taken at the last check.
    taken: Cell<u64>,
    /// Whether a look at the sockets that it has closed is under way.
    pub looks: Cell<bool>,
    /// The highest number of a connection, and the number from which on numbers may run out.
    highest: Cell<RawFd>,
    careful_from: RawFd,
    /// Whether the log says already that the worker's descriptors cannot be seen.
    blind: Cell<bool>,
}

impl Supervised {
    /// Supervises a worker whose calls the notifier reports.
    ///
    /// # Errors
    /// When the reactor cannot watch one descriptor more.
    pub fn new(worker: WorkerId, notifier: Notifier, common: Rc<Common>) -> io::Result<Rc<Supervised>> {
        let limit = limits::descriptor_limit().map_or(0, |limit| limit.soft);
        Ok(Rc::new(Supervised {
            worker,
            notifier: watch::readable(notifier)?,
            common,
            careful_from: RawFd::try_from(limit.saturating_sub(FD_MARGIN)).unwrap_or(RawFd::MAX),
            looks: Cell::new(false),
            highest: Cell::new(0),
            blind: Cell::new(false),
            known: RefCell::default(),
            copies: RefCell::default(),
            bound: RefCell::default(),
            sockets: RefCell::default(),
            next_request: RefCell::new(1),
            given: Cell::default(),
            taken: Cell::default(),
        }))
    }

    /// The kernel's side.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        self.notifier.get_ref()
    }

    /// An id for one more request.
    #[must_use]
    pub fn next_request(&self) -> RequestId {
        let mut next = self.next_request.borrow_mut();
        *next += 1;
        *next
    }

    /// Forgets a socket and returns what was known of it.
    #[must_use]
    pub fn take_known(&self, inode: u64) -> Option<Known> {
        self.known.borrow_mut().remove(&inode)
    }

    /// Remembers a socket.
    pub fn remember(&self, inode: u64, known: Known) {
        let (mut all, mut bound) = (self.known.borrow_mut(), self.bound.borrow_mut());
        if let Known::Bound(_) = known {
            bound.push_back(inode);
            while bound.len() > BOUND_MAX {
                let oldest = bound.pop_front();
                all.extract_if(|inode, known| Some(*inode) == oldest && matches!(known, Known::Bound(_)))
                    .for_each(drop);
            }
        }
        all.insert(inode, known);
    }

    /// Remembers that a socket of the worker was replaced.
    pub fn remember_copy(&self, inode: u64, request: RequestId) {
        self.copies.borrow_mut().insert(inode, request);
    }

    /// The request whose socket has replaced this one.
    #[must_use]
    pub fn copy_of(&self, inode: u64) -> Option<RequestId> {
        self.copies.borrow().get(&inode).copied()
    }

    /// Whether the worker has taken connections since this was last asked, having taken so many in all.
    pub fn takes(&self, taken: u64) -> bool {
        self.taken.replace(taken) < taken
    }

    /// From now on, `accept` on the socket with this inode takes connections from `socket`.
    pub fn open(&self, inode: u64, socket: Rc<HandoffSocket>) {
        self.sockets.borrow_mut().insert(inode, socket);
    }

    /// Forgets the requests whose sockets are not among these, and returns them.
    pub fn closed(&self, open: &std::collections::HashSet<u64>) -> Vec<RequestId> {
        self.copies.borrow_mut().retain(|inode, _| open.contains(inode));
        let mut sockets = self.sockets.borrow_mut();
        let shut: Vec<Rc<HandoffSocket>> =
            sockets.extract_if(|inode, _| !open.contains(inode)).map(|(_, socket)| socket).collect();
        // A socket is also known by the inode of the worker's own socket, of which only copies may be left.
        for socket in shut.iter().filter(|socket| !sockets.values().any(|other| Rc::ptr_eq(other, socket))) {
            socket.watcher.get().into_iter().for_each(JoinHandle::abort);
        }
        let mut known = self.known.borrow_mut();
        let gone = known.extract_if(|inode, known| !matches!(known, Known::Bound(_)) && !open.contains(inode));
        let name = |known| match known {
            Known::Prepared { request, .. } | Known::Listening { request } => Some(request),
            Known::Bound(_) => None,
        };
        gone.filter_map(|(_, known)| name(known)).collect()
    }

    /// The inodes of all sockets that are known.
    #[must_use]
    pub fn inodes(&self) -> std::collections::HashSet<u64> {
        self.known.borrow().keys().chain(self.sockets.borrow().keys()).copied().collect()
    }

    /// Answers calls until the worker's last process is gone.
    pub async fn serve(self: Rc<Self>, events: Events) {
        loop {
            let Ok(mut ready) = self.notifier.readable().await else { return };
            for _ in 0..BURST {
                match self.notifier().receive() {
                    Ok(call) => match call.name {
                        Name::Accept | Name::Accept4 => self.accept(call),
                        Name::GetSockName => self.name(&call),
                        Name::GetSockOpt => self.kind(&call),
                        Name::Bind | Name::Listen => {
                            if events.send(Event::Called { worker: self.worker, call }).await.is_err() {
                                return;
                            }
                        }
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    Err(error) => {
                        debug!(worker = self.worker.0, %error, "supervision of a worker ends");
                        return;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn socket(&self, call: &Call) -> Option<Rc<HandoffSocket>> {
        match foreign::socket_inode(call.thread, call.descriptor()) {
            Ok(inode) => self.sockets.borrow().get(&inode?).cloned(),
            Err(error) => {
                let hidden = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
                if hidden && !self.blind.replace(true) {
                    warn!(worker = self.worker.0, %error, "the descriptors of a supervised worker cannot be seen, so it takes no connections; it gave up privileges: give maitred CAP_SYS_PTRACE, or use --mode kernel");
                }
                None
            }
        }
    }

    /// `accept`: one connection, or the wait for one.
    fn accept(self: &Rc<Self>, call: Call) {
        let Some(socket) = self.socket(&call) else { return self.notifier().pass(&call) };
        // A thread calls once at a time: if it waits here already, a signal interrupted it.
        socket.waiting.borrow_mut().retain(|before| before.thread != call.thread);
        match self.take(&call, &socket) {
            Taken::Answered => {}
            Taken::Nothing if is_nonblocking(socket.handoff.receiver()) => {
                self.notifier().answer(&call, Err(Errno::EAGAIN));
            }
            Taken::Nothing => self.wait(call, socket),
        }
    }

    /// Answers a call of `accept`, unless there is no connection.
    fn take(&self, call: &Call, socket: &HandoffSocket) -> Taken {
        let careful = self.highest.get() >= self.careful_from;
        if careful && !self.common.reserve.free_one() {
            // The connection stays where it is. The kernel says the same when no file is available (accept(2)).
            self.notifier().answer(call, Err(Errno::ENFILE));
            return Taken::Answered;
        }
        let taken = socket.handoff.take();
        let done = match taken {
            Ok(connection) => {
                self.highest.set(self.highest.get().max(connection.connection.as_raw_fd()));
                self.deliver(call, socket, connection);
                Taken::Answered
            }
            Err(NotTaken::Nothing) => Taken::Nothing,
            Err(NotTaken::Ended) => {
                // As for a listening socket that was shut down (accept(2)).
                self.notifier().answer(call, Err(Errno::EINVAL));
                Taken::Answered
            }
            Err(why @ NotTaken::Lost) => {
                // It was handed to the worker, and is the master's again.
                count(&socket.handoff.counters.rescued);
                count(&self.common.lost);
                self.highest.set(RawFd::MAX);
                if let Some(told) = self.common.provoked.tell(self.worker, Kind::Undelivered) {
                    let left_out = told.left_out;
                    warn!(worker = self.worker.0, %why, left_out, "a connection is lost");
                }
                self.notifier().answer(call, Err(Errno::ECONNABORTED));
                Taken::Answered
            }
            Err(NotTaken::Failed(error)) => {
                self.notifier().answer(call, Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::ENOMEM))));
                Taken::Answered
            }
        };
        if careful {
            self.common.reserve.refill();
        }
        done
    }

    /// Lets the call wait until there is a connection.
    fn wait(self: &Rc<Self>, call: Call, socket: Rc<HandoffSocket>) {
        if socket.waiting.borrow().len() >= WAITING_MAX {
            return self.notifier().answer(&call, Err(Errno::ENFILE));
        }
        socket.waiting.borrow_mut().push_back(call);
        socket.called.notify_one();
        socket.watcher.get_or_init(|| tokio::task::spawn_local(Rc::clone(self).serve_waiting(Rc::clone(&socket))));
    }

    /// Answers the calls that wait at a socket, as connections come.
    async fn serve_waiting(self: Rc<Self>, socket: Rc<HandoffSocket>) {
        let watched = socket.handoff.receiver().try_clone_to_owned().and_then(watch::readable);
        loop {
            if socket.waiting.borrow().is_empty() {
                socket.called.notified().await;
                continue;
            }
            let Ok(watched) = &watched else {
                let call = socket.waiting.borrow_mut().pop_front();
                call.iter().for_each(|call| self.notifier().answer(call, Err(Errno::ENFILE)));
                continue;
            };
            let Ok(mut ready) = watched.readable().await else { return };
            loop {
                let Some(call) = socket.waiting.borrow_mut().pop_front() else { break };
                if self.notifier().waits(&call) && matches!(self.take(&call, &socket), Taken::Nothing) {
                    socket.waiting.borrow_mut().push_front(call);
                    ready.clear_ready();
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends the supervision: no call is answered any more.
    pub fn end(&self) {
        for (_, socket) in self.sockets.borrow_mut().drain() {
            socket.watcher.get().into_iter().for_each(JoinHandle::abort);
            socket.waiting.borrow_mut().clear();
        }
    }

    /// Gives the caller a connection, or puts it back when the call no longer waits.
    fn deliver(&self, call: &Call, socket: &HandoffSocket, taken: TakenBack) {
        let flags = if call.name == Name::Accept4 { call.args[3] as i32 } else { 0 };
        let on_exec = if flags & libc::SOCK_CLOEXEC != 0 { OnExec::Close } else { OnExec::Keep };
        let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
        if nonblocking {
            // It cannot fail on a socket.
            let _ = fd::set_nonblocking(taken.connection.as_fd());
        }
        let told = match flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) {
            0 => self.tell_peer(call, socket, &taken),
            _ => Err(Errno::EINVAL),
        };
        let given = told.and_then(|()| {
            self.notifier().give(call, taken.connection.as_fd(), on_exec).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Errno::ESRCH,
                _ => Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)),
            })
        });
        match given {
            Ok(number) => {
                self.given.set(Some((call.thread, number)));
                if let Some(kicker) = self.common.kicker.get() {
                    kicker.attend();
                    kicker.close(taken.connection);
                }
            }
            Err(errno) => {
                if nonblocking {
                    let _ = socket2::SockRef::from(&taken.connection).set_nonblocking(false);
                }
                if !socket.handoff.put_back(&taken) {
                    count(&socket.handoff.counters.rescued);
                    count(&self.common.lost);
                }
                if errno != Errno::ESRCH {
                    self.notifier().answer(call, Err(errno));
                }
            }
        }
    }
}

/// What came of a call of `accept`.
enum Taken {
    /// It has an answer.
    Answered,
    /// There is no connection.
    Nothing,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}
