//! Listening sockets that a service manager kept while no process had them, and gave back (`FileDescriptorStoreMax=`,
//! systemd.service(5)). Each has a name that says whose it was.

use crate::sys::socket::listen::{self, Sharing};
use crate::wire::address::Address;
use socket2::Socket;
use std::cell::RefCell;

/// What names of kept sockets begin with.
const PREFIX: &str = "maitred.";
/// Longest name that a manager takes (`sd_pid_notify_with_fds(3)`).
const NAME_MAX: usize = 255;

/// The name under which the socket of an address is kept: only what a manager takes in names.
#[must_use]
pub fn name_of(address: &Address) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let address: String = address.to_string().chars().map(plain).take(NAME_MAX - PREFIX.len()).collect();
    format!("{PREFIX}{address}")
}

/// Whether a socket with this name was kept for a master.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The sockets that came back and that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Stored(RefCell<Vec<Socket>>);

impl Stored {
    /// These came back.
    #[must_use]
    pub fn new(sockets: Vec<Socket>) -> Stored {
        Stored(RefCell::new(sockets))
    }

    /// The one that is bound to this address; none is where each slot has a socket of its own.
    pub fn take(&self, address: &Address, sharing: Sharing) -> Option<Socket> {
        if sharing == Sharing::Group {
            return None;
        }
        let mut sockets = self.0.borrow_mut();
        let at =
            sockets.iter().position(|socket| listen::local_address(socket).is_ok_and(|bound| bound == *address))?;
        Some(sockets.swap_remove(at))
    }

    /// Those that nobody asked for, with the names under which they are kept. They are closed when dropped.
    pub fn unclaimed(&self) -> Vec<(String, Socket)> {
        let sockets = std::mem::take(&mut *self.0.borrow_mut());
        sockets
            .into_iter()
            .filter_map(|socket| Some((name_of(&listen::local_address(&socket).ok()?), socket)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_in_letters_that_a_manager_takes() {
        let name = name_of(&"tcp:[::1]:80".parse().unwrap());
        assert_eq!(name, "maitred.tcp____1__80");
        assert!(is_name(&name) && !is_name("http") && !is_name("stored"));
        let long = Address::Unix(format!("/{}", "x".repeat(400)).into());
        assert_eq!(name_of(&long).len(), NAME_MAX);
    }

    #[test]
    fn a_socket_is_taken_once_and_by_its_address_only() {
        let socket = || Socket::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let (first, second) = (socket(), socket());
        let [at, other] = [&first, &second].map(|socket| listen::local_address(socket).unwrap());
        let stored = Stored::new(vec![first, second]);
        let take = |address: &Address| stored.take(address, Sharing::Alone);
        assert!(take(&"tcp:127.0.0.1:1".parse().unwrap()).is_none() && stored.take(&at, Sharing::Group).is_none());
        assert!(take(&at).is_some() && take(&at).is_none());
        let left: Vec<String> = stored.unclaimed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, [name_of(&other)]);
        assert!(stored.unclaimed().is_empty());
    }
}
