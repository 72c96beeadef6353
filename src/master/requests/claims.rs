//! Decides whether an address is shared by all workers, private to one, or already taken within the worker. Also
//! handles a worker's processes that let go of a listening socket.

use super::answer::Answer;
use super::deferred::{LOOK_PAUSE, may_conflict};
use super::event::{Event, Found};
use crate::clock;
use crate::config::PortZero;
use crate::core::claim::{Claim, Held, conflicts};
use crate::core::ids::WorkerId;
use crate::front::listener::Origin;
use crate::lifecycle::ending;
use crate::master::run::Master;
use crate::provoked::Kind;
use crate::sys::dispose::Foreign;
use crate::sys::fd;
use crate::sys::process::descent;
use crate::sys::socket::{listen, socket_file};
use crate::sys::taken::Taken;
use crate::wire::address::Address;
use crate::wire::packet::{Count, Follow, Listen, Listens, Otherwise, RequestId, ToWorker, Via};
use crate::workers::looks::is_among;
use crate::workers::worker::{Request, Worker};
use nix::errno::Errno;
use nix::unistd::Pid;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::{debug, info};

/// How long an address of a dead worker stays while all workers serve and none has asked for it.
const ABANDONED_AFTER: Duration = Duration::from_secs(5);
/// A socket that is on its way from one process of a worker to another is in none of them. How often the master looks
/// again where it is, and after which pause each time: ten seconds together. What it is handed meanwhile
/// waits in it.
const IN_FLIGHT_LOOKS: u32 = 40;
/// Sockets of one worker that are looked for at the same time; one more counts as closed.
const IN_FLIGHT_MAX: usize = 4;
const IN_FLIGHT: Duration = Duration::from_millis(250);
/// From this age on, an address that a ready worker opens counts as one for a client, even if nothing else says so.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

impl Master {
    /// Whether the address is not shared: the worker binds it for itself.
    pub(in crate::master) fn is_private(&self, worker: &Worker, listen: &Listen) -> bool {
        let asked = &listen.address;
        if listen.otherwise == Otherwise::Nothing {
            return false;
        }
        if worker.config.private.iter().any(|private| private.covers(asked)) {
            return true;
        }
        if let Address::Unix(path) = asked
            && !self.front.listeners.serves(asked)
        {
            // As with port 0, the name is the worker's own.
            return socket_file::is_in_fresh_directory(path, worker.age());
        }
        asked.is_ephemeral()
            && self.config.port_zero == PortZero::Private
            && !self.front.listeners.has_port_zero(asked, |listener| worker.holds(listener))
    }

    /// Refuses what the kernel would refuse if the worker had its sockets without a master.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub(in crate::master) fn check_claim(
        &mut self,
        id: WorkerId,
        request: RequestId,
        asks: (&Address, Claim),
        whether: Whether,
    ) -> io::Result<()> {
        let taken = |worker: &Worker| worker.requests.iter().any(|r| r.id != request && is_taken(asks, r, whether));
        if self.workers.get(id).is_some_and(|worker| worker.supervised.is_some() && taken(worker)) {
            self.forget_closed(id);
        }
        let worker = self.workers.get(id).ok_or(Errno::ESRCH)?;
        // Even when all pipes are closed, a program that has no pipe yet may have the socket.
        let may_be_open = |other: &Request| {
            worker.looks.seen.as_ref().is_none_or(|seen| seen.may_be_open(other.id, inode(worker, other)))
        };
        let is_held = |other: &Request| !other.holders.are_gone() || may_be_open(other);
        let mut gone = Vec::new();
        for other in worker.requests.iter().filter(|other| other.id != request && may_conflict(asks.0, &other.address))
        {
            if !is_held(other) {
                // Even if the worker's two sockets could share the port, the master's listeners might not.
                gone.push(other.id);
            } else if is_taken(asks, other, whether) {
                debug!(worker = id.0, address = %other.address, "a worker has the address already");
                return Err(Errno::EADDRINUSE.into());
            }
        }
        gone.into_iter().for_each(|request| self.close_what_is_gone(id, request));
        Ok(())
    }

    /// Logs that a worker opened an address late: it may be for one client, and all workers share it. Returns whether
    /// it is late.
    pub(in crate::master) fn notice_late_address(&mut self, id: WorkerId, address: &Address) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let ready_for = worker.ready.then(|| worker.age());
        let has_served = worker.requests.iter().filter_map(|r| r.handoff.as_ref()).any(|handoff| handoff.given() > 0);
        if !worker.admitted || !(has_served || ready_for.is_some_and(|age| age >= SETTLED_AFTER)) {
            return false;
        }
        if let Some(told) = self.front.common.provoked.tell(id, Kind::OpenedLate) {
            let (slot, left_out) = (worker.slot.0, told.left_out);
            info!(slot, worker = id.0, %address, left_out, "a worker that was ready opened one more address, which all workers share now; if it is for one client or for its own processes, leave it alone with --private");
        }
        true
    }

    /// `FOLLOW`: a program that was executed has a socket that its predecessor asked for.
    ///
    /// # Errors
    /// `ENOENT` when it is not one of ours.
    pub(in crate::master) fn follow(&mut self, id: WorkerId, follow: Follow) -> io::Result<Answer> {
        let worker = self.workers.get(id).ok_or(Errno::ESRCH)?;
        let of_it = |request: &&Request| inode(worker, request).is_some_and(|inode| inode == follow.inode);
        let request = worker.requests.iter().find(of_it).ok_or(Errno::ENOENT)?;
        let mut fds = Vec::new();
        if request.handoff.is_some() {
            let listener = request.listener.socket().ok_or(Errno::ESHUTDOWN)?;
            let adopted = request.listener.adopted_from.get() == Some((id, request.id));
            fds.push(match &request.own {
                // The same socket that the worker sent, so that what it sets there before it listens counts.
                Some(own) => own.as_fd().try_clone_to_owned()?,
                None if adopted => listener.as_fd().try_clone_to_owned()?,
                None => listen::with_options_of(listener.as_fd())?,
            });
        }
        let hold = request.holders.add(id, request.id, &self.workers.starter.events).ok();
        // Without a pipe, only `/proc` shows whether it is open.
        request.holders.unwatched.set(request.holders.unwatched.get() || hold.is_none());
        fds.extend(hold);
        let via = if request.handoff.is_some() { Via::Handoff } else { Via::Shared };
        let listens = if request.accepting { Listens::Yes } else { Listens::NotYet };
        let count = self.count_of(worker);
        let message = ToWorker::Follows { address: request.address.clone(), id: request.id, via, listens, count };
        debug!(worker = id.0, address = %request.address, "a program goes on with a socket that it inherited");
        Ok(Answer { message, fds })
    }

    /// Where a worker may count what it takes from a shared socket.
    pub(in crate::master) fn count_of(&self, worker: &Worker) -> Option<Count> {
        let taken = self.workers.starter.taken.as_ref()?;
        Some(Count { place: Taken::place(worker.slot.index()) as u32, path: taken.path() })
    }

    /// The pipes of a listening socket are closed.
    pub(in crate::master) fn let_go(&mut self, id: WorkerId, request: RequestId) {
        let Some(worker) = self.workers.get(id) else { return };
        let Some(request) = worker.requests.iter().find(|r| r.id == request) else {
            return self.let_go_of_datagram(id, request);
        };
        if request.holders.are_gone() {
            self.look_who_holds(worker, request, Duration::ZERO);
        }
    }

    /// Checks whether a process still has the socket: a program that was executed, and has not asked for a pipe yet or
    /// never will.
    fn look_who_holds(&self, worker: &Worker, request: &Request, after: Duration) {
        let Some(inode) = inode(worker, request) else { return };
        let (id, request, events) = (worker.id, request.id, self.request_events());
        let (aside, beside) = (self.front.common.aside.clone(), self.workers.groups_beside(worker.id));
        let passed = worker.unused_passed();
        // What the master sends over these is on its way all the time.
        let mut ours = ending::our_sockets(&self.workers, &self.front);
        ours.extend(self.workers.values().map(|worker| worker.channel_inode));
        tokio::task::spawn_local(async move {
            let look = move || {
                if is_among(Some(inode), descent::sockets_below(Pid::this(), &beside, &passed).as_ref()) {
                    Found::Held
                } else if descent::descriptors_on_their_way(Pid::this(), &beside, &ours) {
                    Found::PerhapsOnItsWay
                } else {
                    Found::Closed
                }
            };
            sleep(after).await;
            let begun = Instant::now();
            let found = aside.run(look).await.unwrap_or(Found::Held);
            if found == Found::PerhapsOnItsWay {
                // The next look comes soon. If much is open, each takes long.
                sleep(begun.elapsed() * LOOK_PAUSE).await;
            }
            let _ = events.send(Event::Looked { worker: id, request, found }).await;
        });
    }

    /// The check is done.
    pub(in crate::master) fn looked(&mut self, id: WorkerId, request: RequestId, found: Found) {
        let Some(worker) = self.workers.get(id) else { return };
        let Some(asked) = worker.requests.iter().find(|r| r.id == request) else {
            return self.looked_for_datagram(id, request, found);
        };
        if !asked.holders.are_gone() {
            // A program that has it by now asked for a pipe of its own.
            return asked.holders.looks.set(0);
        }
        asked.holders.unwatched.set(found == Found::Held);
        let (looks, perhaps) = (asked.holders.looks.get(), found == Found::PerhapsOnItsWay);
        asked.holders.looks.set(if perhaps { looks + 1 } else { 0 });
        let looked_for = worker.requests.iter().filter(|request| request.holders.looks.get() > 0).count();
        match found {
            Found::Held => {}
            // A server that is sent to a child which has just been started takes a while.
            Found::PerhapsOnItsWay if looks < IN_FLIGHT_LOOKS && looked_for <= IN_FLIGHT_MAX => {
                self.look_who_holds(worker, asked, IN_FLIGHT);
            }
            Found::PerhapsOnItsWay | Found::Closed => self.close_what_is_gone(id, request),
        }
    }

    /// Closes a request whose socket no process has any more. If the socket became the listener, it is not a client's,
    /// so other workers that were given it keep it.
    fn close_what_is_gone(&mut self, id: WorkerId, request: RequestId) {
        let requests = || self.workers.values().flat_map(|worker| worker.requests.iter().map(move |r| (worker.id, r)));
        let is_it = |(of, r): &(WorkerId, &Request)| *of == id && r.id == request;
        let listener = requests().find(is_it).map(|(_, r)| Rc::clone(&r.listener));
        if let Some(listener) = listener.filter(|listener| listener.adopted_from.get() == Some((id, request)))
            && requests().any(|other| !is_it(&other) && Rc::ptr_eq(&other.1.listener, &listener))
        {
            listener.adopted_from.set(None);
        }
        self.close(id, request);
    }

    /// Checks again those sockets of a worker for which nothing else reports a close.
    pub(in crate::master) fn look_at_unwatched(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        for request in worker.requests.iter().filter(|r| r.holders.unwatched.get() && r.holders.are_gone()) {
            self.look_who_holds(worker, request, Duration::ZERO);
        }
    }

    /// Gives up addresses of workers that died, if the workers in their place do not ask for them.
    pub(in crate::master) fn give_up_abandoned(&mut self) {
        if self.fleet.is_stopping() || !self.fleet.all_ready() {
            return;
        }
        let now = clock::now();
        for listener in self.front.listeners.iter().filter(|l| l.origin == Origin::Worker) {
            let held = self.workers.values().any(|worker| worker.holds(listener));
            let since = (!held).then(|| listener.unheld_since.get().unwrap_or(now));
            listener.unheld_since.set(since);
            if since.is_some_and(|since| now.since(since) >= ABANDONED_AFTER) {
                listener.given_up.set(true);
                listener.kept_until.set(Some(now));
            }
        }
        self.drop_unused_listeners();
    }
}

/// What a worker is about to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Whether {
    /// To bind it.
    MayBind,
    /// To listen on it.
    MayListen,
}

/// Whether one of a worker's sockets conflicts with another.
fn is_taken((asked, claim): (&Address, Claim), other: &Request, whether: Whether) -> bool {
    let held = if other.accepting { Held::Listens } else { Held::Bound };
    match (asked, &other.address) {
        (Address::Tcp(asked), Address::Tcp(bound)) => {
            // The first socket that listens has the address. One that is only bound does not conflict then.
            let in_the_way = whether == Whether::MayBind || held == Held::Listens;
            in_the_way && conflicts((*asked, claim), (*bound, other.claim, held))
        }
        (Address::Abstract(asked), Address::Abstract(bound)) => whether == Whether::MayBind && asked == bound,
        // A program takes over a socket file by removing it, which the worker may have done.
        _ => false,
    }
}

/// The inode of the socket that a worker's processes have.
fn inode(worker: &Worker, request: &Request) -> Option<u64> {
    match (&request.handoff, &request.listener.group) {
        (Some(handoff), _) => fd::inode(handoff.receiver()).ok(),
        (None, Some(group)) => group.socket_of(worker.slot).ok().and_then(|socket| fd::inode(socket.as_fd()).ok()),
        (None, None) => request.listener.socket().and_then(|socket| fd::inode(socket.as_fd()).ok()),
    }
}

/// The address as a worker asked for it, with the real port of its listener.
pub(in crate::master) fn with_real_port(asked: &Address, real: &Address) -> Address {
    match (asked, real) {
        (Address::Tcp(asked), Address::Tcp(real)) => Address::Tcp(SocketAddr::new(asked.ip(), real.port())),
        _ => asked.clone(),
    }
}

/// What a worker's own socket says about sharing its address. A worker that sends none asked only to take part, as
/// often as it likes.
pub(in crate::master) fn claim_of(own: Option<&Foreign>) -> Claim {
    let (reuse_address, reuse_port, only_v6) = own.map_or((true, true, false), |own| listen::reuse(own.as_fd()));
    Claim { reuse_address, reuse_port, only_v6 }
}
