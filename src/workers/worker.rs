//! One worker as the master knows it.

use super::holders::Holders;
use super::looks::Looks;
use super::output::LastWords;
use super::probe::Target;
use super::supervised::Supervised;
use crate::adapt::Chosen;
use crate::clock;
use crate::config::Config;
use crate::core::claim::Claim;
use crate::core::health::Health;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;
use crate::front::handoff::Handoff;
use crate::front::listener::{Listener, Origin};
use crate::sys::dispose::Foreign;
use crate::sys::process::{reap, spawn};
use crate::wire::address::Address;
use crate::wire::packet::{FromWorker, RequestId, ToWorker};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tracing::debug;

/// Addresses that one worker can ask for at once; one more gets `EMFILE`.
pub const REQUESTS_MAX: usize = 256;

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// The reload that brought it.
    pub generation: Generation,
    /// What it was started with.
    pub config: Rc<Config>,
    /// Its process, which also names its group.
    pub pid: Pid,
    /// How it takes part.
    pub adapter: Chosen,
    /// When it was forked.
    pub since: Moment,
    /// Its secret at the rendezvous.
    pub token: String,
    /// The inode of its own end of the control channel.
    pub channel_inode: u64,
    /// The master's end of the control channel.
    pub channel: Rc<AsyncFd<Foreign>>,
    /// The last lines that it wrote to its standard error.
    pub last_words: Arc<LastWords>,
    /// The last lines that it wrote to its standard output, if that comes through this process.
    pub last_out: Arc<LastWords>,
    /// Readable when its process has ended.
    pub pidfd: Rc<AsyncFd<OwnedFd>>,
    /// Its notification socket.
    pub notify: Arc<Foreign>,
    /// The other end of its notification descriptor, if it has one.
    pub notification: Option<Rc<AsyncFd<OwnedFd>>>,
    /// What it asked for.
    pub requests: Vec<Request>,
    /// The UDP addresses that it shares.
    pub datagrams: Vec<SharedUdp>,
    /// Tasks that end with it.
    pub tasks: Vec<JoinHandle<()>>,
    /// The supervision of its system calls, with the seccomp adapter.
    pub supervised: Option<Rc<Supervised>>,
    /// Whether its process executes its program.
    pub executes: Executes,
    /// Whether it serves the operator's addresses on the sockets that it inherited.
    pub uses_inherited: bool,
    /// How many sockets of the operator's addresses it was started with.
    pub passed: u32,
    /// Looks at what it has open, for requests that depend on that.
    pub looks: Looks,
    /// Whether its first process ended as it should, and others of its group go on for now.
    pub outlived: bool,
    /// When its first process was seen to have ended, if it was.
    pub ended: Option<Moment>,
    /// Whether the log says already that it does not take part as it should.
    pub reported: bool,
    /// The time that it has to listen again after it stopped.
    pub deaf_moment: Option<JoinHandle<()>>,
    /// Whether it ever listened on an address of the master's.
    pub listened: bool,
    /// Whether it is ready by the measure that was chosen.
    pub ready: bool,
    /// Whether it gets time to listen where the workers listen that it replaces.
    pub awaits_addresses: bool,
    /// Whether something that was begun will lead to its readiness.
    pub asked: bool,
    /// Whether it may have connections.
    pub admitted: bool,
    /// Whether it gets nothing more, and will end.
    pub leaves: bool,
    /// Where its health can be probed.
    pub target: Target,
    /// Its health.
    pub health: Health,
}

/// Whether a worker's process executes the program that it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executes {
    /// It is about to.
    NotYet,
    /// It does.
    Yes,
    /// Something kept it from that.
    Never,
}

/// Whether a worker is to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayProbe {
    /// As configured.
    Yes,
    /// No more.
    No,
}

/// One `LISTEN` of a worker.
#[derive(Debug)]
pub struct Request {
    /// The worker's name for it.
    pub id: RequestId,
    /// The address that serves it.
    pub listener: Rc<Listener>,
    /// The socket that it got, in hand-off mode.
    pub handoff: Option<Rc<Handoff>>,
    /// Whether the worker said `ACCEPTING`.
    pub accepting: bool,
    /// The worker's own socket, until its options are known.
    pub own: Option<Foreign>,
    /// The address as the worker asked for it, with the port that it really has.
    pub address: Address,
    /// What the worker's socket says about sharing its address.
    pub claim: Claim,
    /// The processes of the worker that still have the socket.
    pub holders: Holders,
}

/// One `DATAGRAM` of a worker: a UDP address that it shares.
#[derive(Debug)]
pub struct SharedUdp {
    /// The worker's name for it.
    pub id: RequestId,
    /// The address.
    pub address: SocketAddr,
    /// What the worker's socket says about sharing its address.
    pub claim: Claim,
    /// The processes of the worker that still have the socket.
    pub holders: Holders,
}

impl Worker {
    /// How long it has lived.
    #[must_use]
    pub fn age(&self) -> Duration {
        clock::now().since(self.since)
    }

    /// The numbers of the sockets that it was started with (`sd_listen_fds(3)`), unless it uses them: then they are its
    /// listeners, and otherwise nobody closes them when it closes those that it bound itself.
    #[must_use]
    pub fn unused_passed(&self) -> Range<RawFd> {
        let count = if self.uses_inherited { 0 } else { self.passed };
        spawn::FIRST_LISTEN_FD..spawn::FIRST_LISTEN_FD + count as RawFd
    }

    /// Whether it listened on addresses of the master's and listens on none now.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.listened && !self.uses_inherited && !self.requests.iter().any(|request| request.accepting)
    }

    /// Whether its first process runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(reap::how_it_ended(self.pidfd.get_ref().as_fd()), Ok(None))
    }

    /// Whether it may turn out to be deaf: no process is known that has one of its sockets.
    #[must_use]
    pub fn may_be_deaf(&self) -> bool {
        let let_go = |request: &Request| request.holders.are_gone() && !request.holders.unwatched.get();
        let mut accepting = self.requests.iter().filter(|request| request.accepting).peekable();
        accepting.peek().is_some() && accepting.all(let_go)
    }

    /// Whether it has a socket on this listener.
    #[must_use]
    pub fn holds(&self, listener: &Listener) -> bool {
        self.requests.iter().any(|request| std::ptr::eq(&*request.listener, listener))
    }

    /// Whether it accepts there.
    #[must_use]
    pub fn serves(&self, listener: &Rc<Listener>) -> bool {
        let inherits = self.uses_inherited && listener.origin == Origin::Operator;
        inherits || self.requests.iter().any(|r| r.accepting && Rc::ptr_eq(&r.listener, listener))
    }

    /// Chooses where its health can be probed, after its requests changed; nowhere when it is to leave.
    pub fn choose_target(&self, asked: MayProbe) {
        let accepting = self.requests.iter().filter(|r| r.accepting);
        let found = accepting.filter_map(|r| Some((r.handoff.clone()?, r.listener.address.clone()))).next();
        self.target.replace(found.filter(|_| asked == MayProbe::Yes));
    }

    /// Takes a request out.
    pub fn take_request(&mut self, id: RequestId) -> Option<Request> {
        let index = self.requests.iter().position(|request| request.id == id)?;
        Some(self.requests.swap_remove(index))
    }

    /// Tells it something that it may ignore.
    pub fn tell(&self, message: &ToWorker) {
        if let Err(error) = super::channel::tell(self.channel.get_ref().as_fd(), message, &[]) {
            debug!(slot = self.slot.0, worker = self.id.0, %error, ?message, "the worker does not hear");
        }
    }

    /// Stops watching it, after its end.
    pub fn forget(&self) {
        self.tasks.iter().chain(&self.deaf_moment).for_each(JoinHandle::abort);
        self.supervised.iter().for_each(|supervised| supervised.end());
        self.requests.iter().filter_map(|request| request.handoff.as_ref()).for_each(|handoff| handoff.finish());
    }
}

/// The name of what a worker said, for the log.
#[must_use]
pub fn name_of(said: &FromWorker) -> &'static str {
    match said {
        FromWorker::Listen(_) => "LISTEN",
        FromWorker::Datagram(_) => "DATAGRAM",
        FromWorker::Follow(_) => "FOLLOW",
        FromWorker::Accepting { .. } => "ACCEPTING",
        FromWorker::Close { .. } => "CLOSE",
        FromWorker::Truncated { .. } => "TRUNCATED",
        FromWorker::Ready => "READY",
        FromWorker::Stopping => "STOPPING",
        FromWorker::Status(_) => "STATUS",
        FromWorker::Watchdog => "WATCHDOG",
        FromWorker::Replace(_) => "REPLACE",
        FromWorker::Ping(_) => "PING",
        FromWorker::Pong(_) => "PONG",
    }
}
