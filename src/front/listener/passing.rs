//! A listener that goes on in the next program of this process.

use super::{HeldBy, Key, Listener, Origin, Phase};
use crate::clock;
use crate::core::ids::WorkerId;
use crate::front::common::Common;
use crate::front::handoff::Handoff;
use crate::front::incoming::TakenBack;
use crate::front::worker_set;
use crate::kernel::group::{self, Group};
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::socket::socket_file::SocketFile;
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use tokio::sync::Notify;

/// A listener as it is passed on to the next program of this process. Hand-off sockets are named by their
/// place in a table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    key: Key,
    address: Address,
    origin: Origin,
    accepted: u64,
    backlog: u32,
    held: Option<(Number, Vec<u8>)>,
    adopted_from: Option<(WorkerId, RequestId)>,
    given_up: bool,
    #[serde(default)]
    opened_late: bool,
    held_by: HeldBy,
    styled: bool,
    path: Option<SocketFile>,
    socket: Option<Number>,
    group: Option<group::Passed>,
    #[serde(rename = "seats")]
    workers: worker_set::passing::Passed,
}

impl Passed {
    /// Its group of sockets, in kernel mode.
    #[must_use]
    pub fn group(&self) -> Option<&group::Passed> {
        self.group.as_ref()
    }
}

impl Listener {
    /// Passes it on; `place` gives the index of each hand-off socket in the table.
    pub fn pass(&self, passing: &Passing, place: &mut dyn FnMut(&Rc<Handoff>) -> usize) -> Passed {
        let held = self.held.borrow();
        Passed {
            key: self.key.clone(),
            address: self.address.clone(),
            origin: self.origin,
            accepted: self.accepted.get(),
            backlog: self.backlog.get(),
            held: held.as_ref().map(|held| (passing.pass(&held.connection), held.peer().to_vec())),
            adopted_from: self.adopted_from.get(),
            given_up: self.given_up.get(),
            opened_late: self.opened_late.get(),
            held_by: self.held_by.get(),
            styled: self.styled.get(),
            path: self.path.borrow().clone(),
            // With a group, its first socket is among those of the group.
            socket: self.socket().filter(|_| self.group.is_none()).map(|socket| passing.pass(&*socket)),
            group: self.group.as_ref().map(|group| group.pass(passing)),
            workers: self.workers.pass(place),
        }
    }

    /// Takes over a listener that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing, or none is free.
    pub fn take(passed: Passed, taking: &Taking, common: Rc<Common>, handoffs: &[Rc<Handoff>]) -> io::Result<Listener> {
        let defer = common.admission.defer;
        let group = passed.group.map(|group| Group::take(group, taking, defer)).transpose()?;
        let socket = match (&group, passed.socket) {
            (Some(group), _) => group.sockets().into_iter().next(),
            (None, number) => number.map(|n| taking.take(n)).transpose()?.map(|fd| Rc::new(Socket::from(fd))),
        };
        let held =
            passed.held.map(|(connection, peer)| Ok::<_, io::Error>(TakenBack::new(taking.take(connection)?, &peer)));
        let workers = common.worker_set(&passed.address, socket.as_deref())?.take(&passed.workers, handoffs)?;
        Ok(Listener {
            key: passed.key,
            address: passed.address,
            origin: passed.origin,
            workers,
            changed: Notify::new(),
            accepted: Cell::new(passed.accepted),
            backlog: Cell::new(passed.backlog),
            phase: Cell::new(if socket.is_some() { Phase::Open } else { Phase::GivenUp }),
            saturated: RefCell::default(),
            held: RefCell::new(held.transpose()?),
            timed: Cell::new(None),
            held_until: Cell::new(common.admission.longest_wait().map(|most| clock::now() + most)),
            served_since: Cell::new(None),
            adopted_from: Cell::new(passed.adopted_from),
            given_up: Cell::new(passed.given_up),
            given_up_by: Cell::new(None),
            unheld_since: Cell::new(None),
            kept_until: Cell::new(None),
            opened_late: Cell::new(passed.opened_late),
            exhausted: Cell::new(false),
            held_by: Cell::new(passed.held_by),
            failures: Cell::default(),
            common,
            group,
            socket: RefCell::new(socket),
            styled: Cell::new(passed.styled),
            path: RefCell::new(passed.path),
        })
    }
}
