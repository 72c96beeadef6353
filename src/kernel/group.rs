//! The sockets of one address in kernel mode: one for each slot, held for as long as the slot is
//! wanted. A worker that dies leaves its slot's queue behind, and the next one in the slot serves it.

use super::{Kind, Steering};
use crate::core::ids::Slot;
use crate::kernel::order::Share;
use crate::sys::dispose;
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::socket::listen;
use crate::sys::socket::listen::BACKLOG;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// A group of listening sockets and what steers among them.
#[derive(Debug)]
pub struct Group {
    members: RefCell<Vec<Member>>,
    steering: RefCell<Steering>,
    /// How long the kernel keeps a silent connection to itself.
    defer: Option<Duration>,
}

#[derive(Debug)]
struct Member {
    slot: Slot,
    socket: Rc<Socket>,
    /// Whether it listens, as far as the steering knows.
    entered: bool,
}

/// A group as it is passed on to the next program of this process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    members: Vec<PassedMember>,
    steering: super::Passed,
}

impl Passed {
    /// Whether this version understands the steering.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.steering.is_understood()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct PassedMember {
    slot: Slot,
    socket: Number,
    entered: bool,
}

impl Group {
    /// Passes it on.
    pub fn pass(&self, passing: &Passing) -> Passed {
        let member = |m: &Member| PassedMember { slot: m.slot, socket: passing.pass(&*m.socket), entered: m.entered };
        let members = self.members.borrow().iter().map(member).collect();
        Passed { members, steering: self.steering.borrow().pass(passing) }
    }

    /// Takes over a group that was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing, or the steering is not what this version knows.
    pub fn take(passed: Passed, taking: &Taking, defer: Option<Duration>) -> io::Result<Group> {
        let member = |m: PassedMember| {
            let socket = Rc::new(Socket::from(taking.take(m.socket)?));
            Ok(Member { slot: m.slot, socket, entered: m.entered })
        };
        let members = passed.members.into_iter().map(member).collect::<io::Result<Vec<_>>>()?;
        let steering = Steering::take(passed.steering, taking)?;
        Ok(Group { members: RefCell::new(members), steering: RefCell::new(steering), defer })
    }

    /// A group with one bound socket, that of `slot`.
    #[must_use]
    pub fn new(slot: Slot, socket: Rc<Socket>, steering: Steering, defer: Option<Duration>) -> Group {
        let members = RefCell::new(vec![Member { slot, socket, entered: false }]);
        Group { members, steering: RefCell::new(steering), defer }
    }

    /// The socket of a slot, made now if it has none yet.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn socket_of(&self, slot: Slot) -> io::Result<Rc<Socket>> {
        if let Some(socket) = self.existing(slot) {
            return Ok(socket);
        }
        if self.steering.borrow().kind() == Kind::Random {
            // Places in the kernel's group are known only if the sockets begin to listen one after the other.
            self.enter_all()?;
        }
        let mut members = self.members.borrow_mut();
        let first = members.first().ok_or(nix::errno::Errno::ESHUTDOWN)?;
        let socket = Rc::new(listen::bind_beside(&first.socket)?);
        members.push(Member { slot, socket: Rc::clone(&socket), entered: false });
        Ok(socket)
    }

    fn existing(&self, slot: Slot) -> Option<Rc<Socket>> {
        self.members.borrow().iter().find(|m| m.slot == slot).map(|m| Rc::clone(&m.socket))
    }

    fn enter_all(&self) -> io::Result<()> {
        let slots: Vec<Slot> = self.members.borrow().iter().map(|m| m.slot).collect();
        slots.into_iter().try_for_each(|slot| self.listen(slot, None))
    }

    /// Lets the slot's socket listen and be steered to, from the next [`Group::order`] on.
    ///
    /// # Errors
    /// The error of `listen(2)`, or one that says that the kernel takes no more sockets.
    pub fn listen(&self, slot: Slot, backlog: Option<u32>) -> io::Result<()> {
        let mut members = self.members.borrow_mut();
        let Some(member) = members.iter_mut().find(|m| m.slot == slot) else { return Ok(()) };
        let listens = listen::is_listening(&member.socket);
        if !listens && std::mem::replace(&mut member.entered, false) {
            // A worker shut it down, and the kernel forgot its place.
            self.steering.borrow_mut().leave(slot.0);
        }
        if backlog.is_some() || !listens {
            // Here, since options of a worker's own socket may just have been copied.
            if let Some(defer) = self.defer {
                listen::defer(&member.socket, defer)?;
            }
            member.socket.listen(i32::try_from(backlog.unwrap_or(BACKLOG)).unwrap_or(i32::MAX))?;
        }
        if !member.entered {
            self.steering.borrow_mut().enter(slot.0, member.socket.as_fd())?;
            member.entered = true;
        }
        Ok(())
    }

    /// The slots that could be steered to.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        self.members.borrow().iter().filter(|m| m.entered).map(|m| m.slot).collect()
    }

    /// The sockets of all slots.
    #[must_use]
    pub fn sockets(&self) -> Vec<Rc<Socket>> {
        self.members.borrow().iter().map(|m| Rc::clone(&m.socket)).collect()
    }

    /// Says which slots get connections, and what each should get. Returns whether that is new.
    pub fn order(&self, shares: &[Share]) -> bool {
        let members = self.members.borrow();
        let Some(any) = members.iter().find(|m| m.entered) else { return false };
        let knows = |share: &&Share| members.iter().any(|m| m.slot.0 == share.slot && m.entered);
        let known: Vec<Share> = shares.iter().filter(knows).copied().collect();
        self.steering.borrow_mut().order(&known, any.socket.as_fd())
    }

    /// Ends a slot that is not wanted any more. What waits there moves to the others where the kernel can do that.
    /// Returns how many connections were lost with it.
    pub fn vacate(&self, slot: Slot) -> u64 {
        let mut members = self.members.borrow_mut();
        // The last one stays: without it nothing would know the address any more.
        let Some(index) = members.iter().position(|m| m.slot == slot).filter(|_| members.len() > 1) else { return 0 };
        let member = members.remove(index);
        let mut steering = self.steering.borrow_mut();
        steering.leave(slot.0);
        let waiting = u64::from(listen::queued(member.socket.as_fd()));
        let _ = member.socket.shutdown(Shutdown::Both);
        dispose::let_go(member.socket);
        if steering.migrates() { 0 } else { waiting }
    }

    /// Takes out a slot's socket on which no worker listened. Returns another of the group, if there is one.
    pub fn withdraw(&self, slot: Slot) -> Option<Rc<Socket>> {
        let mut members = self.members.borrow_mut();
        let other = members.iter().find(|m| m.slot != slot).map(|m| Rc::clone(&m.socket))?;
        // It may be a client's by now, and the worker decides how long its close takes.
        let gone = members.extract_if(.., |m| m.slot == slot && !m.entered);
        gone.for_each(|member| dispose::let_go(member.socket));
        Some(other)
    }

    /// Whether what waits at a slot's socket can move to the others when it is shut down. Some of those must get
    /// connections.
    #[must_use]
    pub fn can_move_from(&self, slot: Slot) -> bool {
        let steering = self.steering.borrow();
        steering.migrates() && steering.eligible().iter().any(|other| other.slot != slot.0)
    }

    /// Refuses new connections from now on. Returns false where that cannot be done without losing those that wait.
    #[must_use]
    pub fn refuse(&self) -> bool {
        self.steering.borrow().refuse()
    }

    /// Ends all sockets; workers may still hold them, so they are shut down.
    pub fn close(&self) {
        for member in self.members.borrow_mut().drain(..) {
            if member.entered {
                dispose::no_linger(member.socket.as_fd());
                let _ = member.socket.shutdown(Shutdown::Both);
            }
            dispose::let_go(member.socket);
        }
    }

    /// Connections that wait at a slot's socket.
    #[must_use]
    pub fn queued_at(&self, slot: Slot) -> u64 {
        self.existing(slot).map_or(0, |socket| u64::from(listen::queued(socket.as_fd())))
    }

    /// Connections that wait at all of them.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.members.borrow().iter().map(|m| u64::from(listen::queued(m.socket.as_fd()))).sum()
    }

    /// Connections steered to a slot so far; `None` where nothing counts.
    #[must_use]
    pub fn steered_to(&self, slot: Slot) -> Option<u64> {
        self.steering.borrow().steered_to(slot.0)
    }

    /// Connections steered so far; 0 where nothing counts.
    #[must_use]
    pub fn steered(&self) -> u64 {
        self.steering.borrow().steered()
    }

    /// What chooses, and why nothing better does.
    #[must_use]
    pub fn steering(&self) -> (Kind, Option<String>) {
        let steering = self.steering.borrow();
        (steering.kind(), steering.reason().map(str::to_owned))
    }
}
