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
    let address_text = address.to_string();
    let address: String = address_text.chars().map(plain).take(NAME_MAX - PREFIX.len() - 9).collect();
    // Different addresses may look alike in these letters.
    let mut crc = flate2::Crc::new();
    crc.update(address_text.as_bytes());
    let different = crc.sum();
    format!("{PREFIX}{address}.{different:08x}")
}

/// Whether an address can be kept: of a socket with a file nobody knows later whether the file still leads to it.
#[must_use]
pub fn can_be_kept(address: &Address) -> bool {
    !matches!(address, Address::Unix(_))
}

/// Whether a socket with this name was kept for a master.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The sockets that came back and that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Stored {
    kept: RefCell<Vec<Socket>>,
    useless: RefCell<Vec<String>>,
}

impl Stored {
    /// These came back.
    #[must_use]
    pub fn new(sockets: Vec<Socket>) -> Stored {
        Stored { kept: RefCell::new(sockets), useless: RefCell::default() }
    }

    /// The one that is bound to this address; none is where each slot has a socket of its own. Those that would be in the
    /// way there stop listening, also for the manager, which still has them.
    pub fn take(&self, address: &Address, sharing: Sharing) -> Option<Socket> {
        let mut sockets = self.kept.borrow_mut();
        let is_at = |socket: &Socket, fits: &dyn Fn(&Address) -> bool| {
            listen::local_address(socket).is_ok_and(|bound| fits(&bound))
        };
        let same = |bound: &Address| sharing == Sharing::Alone && bound == address;
        let found = sockets.iter().position(|socket| is_at(socket, &same)).map(|at| sockets.swap_remove(at));
        for socket in sockets.extract_if(.., |socket| is_at(socket, &|bound| bound.covers(address))) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
            self.useless.borrow_mut().extend(listen::local_address(&socket).map(|bound| name_of(&bound)));
        }
        found
    }

    /// The names of those that turned out to be in the way.
    pub fn useless(&self) -> Vec<String> {
        std::mem::take(&mut *self.useless.borrow_mut())
    }

    /// Those that nobody asked for, with the names under which they are kept. They are closed when dropped.
    pub fn unclaimed(&self) -> Vec<(String, Socket)> {
        let sockets = std::mem::take(&mut *self.kept.borrow_mut());
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
        assert!(name.starts_with("maitred.tcp____1__80."), "{name}");
        let names = ["/run/a/b", "/run/a_b"].map(|path| name_of(&Address::Unix(path.into())));
        assert_ne!(names[0], names[1]);
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
        assert!(take(&"tcp:127.0.0.1:1".parse().unwrap()).is_none());
        assert!(take(&at).is_some() && take(&at).is_none());
        assert!(stored.useless().is_empty());
        let left: Vec<String> = stored.unclaimed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, [name_of(&other)]);
        assert!(stored.unclaimed().is_empty());
    }

    #[test]
    fn one_that_is_in_the_way_stops_listening_also_where_it_is_kept() {
        for sharing in [Sharing::Alone, Sharing::Group] {
            let socket = Socket::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let (copy, at) = (socket.try_clone().unwrap(), listen::local_address(&socket).unwrap());
            let Address::Tcp(tcp) = at else { panic!("{at:?}") };
            let wanted = match sharing {
                Sharing::Alone => Address::Tcp(([0, 0, 0, 0], tcp.port()).into()),
                Sharing::Group => at.clone(),
            };
            let stored = Stored::new(vec![socket]);
            assert!(stored.take(&wanted, sharing).is_none());
            assert_eq!(stored.useless(), [name_of(&at)]);
            assert!(!listen::is_listening(&copy) && listen::bind(&wanted, Sharing::Alone).unwrap().listen(1).is_ok());
        }
    }
}
