//! UDP addresses that several workers serve. There is nothing to accept: in hand-off and shared mode all workers have the
//! same socket, and a datagram goes to the first that reads it. In kernel mode each slot has a socket of its own, and the
//! kernel's hash over both addresses gives a flow its socket (`reuseport_select_sock` in net/core/sock_reuseport.c). The
//! master holds all of them, so neither a crash nor a reload changes where a flow goes.

use crate::config::Mode;
use crate::core::ids::Slot;
use crate::core::moment::Moment;
use crate::sys::dispose::{self, Foreign};
use crate::sys::exec::{Number, Passing, Taking};
use crate::sys::fd;
use crate::sys::socket::listen::{self, Sharing};
use crate::wire::address::Address;
use crate::wire::packet::Ownership;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// UDP addresses that may be shared at once; a worker that asks for one more gets `EMFILE`.
pub const DATAGRAMS_MAX: usize = 256;
/// How long an address stays that no worker has, while all workers serve.
const UNHELD_FOR: Duration = Duration::from_secs(5);

/// All shared UDP addresses.
#[derive(Debug)]
pub struct Datagrams {
    mode: Mode,
    all: Vec<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    /// One, or in kernel mode one for each slot.
    sockets: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    /// The slot that it belongs to, or whose worker was the first.
    slot: Slot,
    socket: Socket,
    /// Since when no worker has it.
    unheld_since: Option<Moment>,
}

impl Member {
    fn new(slot: Slot, socket: Socket) -> Member {
        Member { slot, socket, unheld_since: None }
    }
}

/// One address as it is passed on to the next program of this process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    address: SocketAddr,
    sockets: Vec<(Slot, Number)>,
}

impl Datagrams {
    /// No address yet.
    #[must_use]
    pub fn new(mode: Mode) -> Datagrams {
        Datagrams { mode, all: Vec::new() }
    }

    /// Whether workers share this address.
    #[must_use]
    pub fn serves(&self, asked: SocketAddr) -> bool {
        self.all.iter().any(|shared| shared.address == asked)
    }

    /// The shared addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|shared| shared.address)
    }

    /// All sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.all.iter().flat_map(|shared| &shared.sockets).map(|member| &member.socket)
    }

    /// The inodes of the sockets of an address.
    pub fn inodes(&self, of: SocketAddr) -> impl Iterator<Item = u64> {
        let shared = self.all.iter().filter(move |shared| shared.address == of);
        shared.flat_map(|shared| &shared.sockets).filter_map(|member| fd::inode(member.socket.as_fd()).ok())
    }

    /// The socket of a slot for an address. If there is none yet, the worker's own socket becomes it.
    ///
    /// # Errors
    /// What `bind` is to return in the worker.
    pub fn socket_for(
        &mut self,
        address: SocketAddr,
        slot: Slot,
        own: Option<&Foreign>,
    ) -> io::Result<(OwnedFd, Ownership)> {
        let sharing = if self.mode == Mode::Kernel { Sharing::Group } else { Sharing::Alone };
        let full = self.all.len() >= DATAGRAMS_MAX;
        let known = self.all.iter_mut().find(|shared| shared.address == address);
        let fits = |of: Slot| sharing == Sharing::Alone || of == slot;
        if let Some(member) = known.iter().flat_map(|shared| &shared.sockets).find(|member| fits(member.slot)) {
            return Ok((member.socket.as_fd().try_clone_to_owned()?, Ownership::Master));
        }
        let own = own.ok_or(Errno::EINVAL)?;
        if known.is_none() {
            if full {
                return Err(Errno::EMFILE.into());
            }
            if sharing == Sharing::Group {
                listen::is_free_for_datagrams(address)?;
            }
        }
        let socket = listen::adopt_datagram(own, address, sharing)?;
        let given = socket.as_fd().try_clone_to_owned()?;
        let member = Member::new(slot, socket);
        match known {
            Some(shared) => shared.sockets.push(member),
            None => self.all.push(Shared { address, sockets: vec![member] }),
        }
        Ok((given, Ownership::Adopted))
    }

    /// Gives up an address at once.
    pub fn give_up(&mut self, address: SocketAddr) {
        self.all.extract_if(.., |shared| shared.address == address).for_each(let_go);
    }

    /// Gives up addresses that nobody has and that overlap the one that is about to be bound. Any other one stays: the
    /// worker may be about to bind it again.
    pub fn make_way(&mut self, asked: SocketAddr, held: impl Fn(SocketAddr) -> bool) {
        let overlaps = |other| other != asked && Address::Tcp(other).covers(&Address::Tcp(asked));
        // Closed before the next one is bound.
        self.all.retain(|shared| !overlaps(shared.address) || held(shared.address));
    }

    /// Gives up sockets that no worker has had for a while; in kernel mode `held` is asked for each slot. A socket of a
    /// slot that is gone would go on getting its share of the flows. Returns the addresses of which nothing is left.
    pub fn give_up_unheld(&mut self, now: Moment, held: impl Fn(SocketAddr, Option<Slot>) -> bool) -> Vec<SocketAddr> {
        let each = self.mode == Mode::Kernel;
        for shared in &mut self.all {
            let address = shared.address;
            let over = |member: &mut Member| {
                let held = held(address, each.then_some(member.slot));
                member.unheld_since = (!held).then(|| member.unheld_since.unwrap_or(now));
                member.unheld_since.is_some_and(|since| now.since(since) >= UNHELD_FOR)
            };
            shared.sockets.extract_if(.., over).for_each(|member| dispose::dispose(member.socket.into()));
        }
        let empty = |shared: &mut Shared| shared.sockets.is_empty();
        self.all.extract_if(.., empty).map(|shared| shared.address).collect()
    }

    /// Leaves all to the workers that still have them.
    pub fn leave(&mut self) {
        self.all.drain(..).for_each(let_go);
    }

    /// Passes all on.
    pub fn pass(&self, passing: &Passing) -> Vec<Passed> {
        let one = |shared: &Shared| Passed {
            address: shared.address,
            sockets: shared.sockets.iter().map(|member| (member.slot, passing.pass(&member.socket))).collect(),
        };
        self.all.iter().map(one).collect()
    }

    /// Takes over what was passed on.
    ///
    /// # Errors
    /// When a descriptor is missing.
    pub fn take(mode: Mode, passed: Vec<Passed>, taking: &Taking) -> io::Result<Datagrams> {
        let socket = |(slot, number)| Ok(Member::new(slot, Socket::from(taking.take(number)?)));
        let one = |passed: Passed| {
            let sockets = passed.sockets.into_iter().map(socket).collect::<io::Result<_>>()?;
            Ok(Shared { address: passed.address, sockets })
        };
        Ok(Datagrams { mode, all: passed.into_iter().map(one).collect::<io::Result<_>>()? })
    }
}

/// It was a worker's own socket.
fn let_go(shared: Shared) {
    shared.sockets.into_iter().for_each(|member| dispose::dispose(member.socket.into()));
}
