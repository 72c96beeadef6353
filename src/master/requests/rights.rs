//! The master does what a worker asks for with the rights of the process that asks. A worker may have given up root, or
//! a part of it; the master has not. The operator gave the workers what `--bind` names, whatever their own rights are.

use crate::core::ids::WorkerId;
use crate::front::listener::Origin;
use crate::front::listeners::Listeners;
use crate::master::run::Master;
use crate::sys::process::credentials;
use crate::sys::rights::Asker;
use crate::wire::address::Address;
use nix::errno::Errno;
use nix::sys::socket::UnixCredentials;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::warn;

impl Master {
    /// The process that sent a packet, identified by the connection at the rendezvous, or by what the kernel wrote
    /// beside the packet. If the kernel wrote nothing, the worker's first process stands for all.
    pub(in crate::master) fn asker(
        &self,
        id: WorkerId,
        rendezvous: Option<BorrowedFd<'_>>,
        sender: Option<&UnixCredentials>,
    ) -> io::Result<Asker> {
        if let Some(rendezvous) = rendezvous {
            return Ok(Asker::of_sender(&credentials::peer(rendezvous)?));
        }
        match sender {
            Some(sender) => Ok(Asker::of_sender(sender)),
            None => Asker::of_thread(self.workers.get(id).ok_or(Errno::ESRCH)?.pid),
        }
    }

    /// Whether a process may have an address: the operator gave it, or the process could get it without us.
    pub(in crate::master) fn may(&self, asker: &Asker, address: &Address) -> io::Result<()> {
        if asker.uid().is_none() || is_operators(&self.front.listeners, address) {
            return Ok(());
        }
        let allowed = asker.may(address).and_then(|()| match address {
            // The process shares a file that it could have made itself.
            Address::Unix(path) => asker.may_write_beside(path),
            Address::Tcp(_) | Address::Abstract(_) => Ok(()),
        });
        if allowed.is_err() {
            refuse(asker, address);
        }
        allowed
    }
}

/// Finds or makes a listener; files are made, replaced and removed as if the process that asks did it.
pub(in crate::master) fn in_name_of<T>(
    asker: &Asker,
    address: &Address,
    listeners: &mut Listeners,
    find: impl FnOnce(&mut Listeners) -> io::Result<T>,
) -> io::Result<T> {
    let makes_file = matches!(address, Address::Unix(_)) && !listeners.serves(address);
    if makes_file { asker.act(|| find(listeners))? } else { find(listeners) }
}

/// Whether `--bind` or a service manager gave the address to the workers.
fn is_operators(listeners: &Listeners, asked: &Address) -> bool {
    let gives = |given: &Address| given == asked || given.covers(asked);
    listeners.iter().any(|l| l.origin == Origin::Operator && (gives(&l.key.asked) || gives(&l.address)))
}

/// Logs which user was refused which address, but not each time: a process may ask for ever.
fn refuse(asker: &Asker, address: &Address) {
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let refused = REFUSED.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(uid) = asker.uid().filter(|_| refused.is_power_of_two()) {
        warn!(uid, %address, refused, "a worker's user asks for what it may not have itself; give it to the workers with --bind");
    }
}
