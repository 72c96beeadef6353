//! Receives what comes to names that any process can find: at the [`super::rendezvous`], and at the workers'
//! notification sockets ([`super::notify`]).
//!
//! Any process on the machine can connect and send there, and what a stranger sends must cost the master's loop
//! nothing. Even dropping it can take long: at the last close of a socket that another process has prepared, the kernel
//! waits for as long as it was told to (see [`crate::sys::interrupt`]). So a thread of its own hears the clients. It
//! asks the kernel what they are before it receives anything, closes the connections of strangers, takes no descriptors
//! where none are needed, and is interrupted where it would wait. What proven processes of workers say becomes events.

use super::channel::{self, Message};
use super::{Event, Events, FromWorker};
use crate::core::ids::WorkerId;
use crate::sys::dispose::Foreign;
use crate::sys::fd;
use crate::sys::interrupt::Interrupter;
use crate::sys::process::credentials;
use crate::wire::packet::{self, PACKET_MAX};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Clients that are heard at once. When one more comes, the oldest has to go; it may come again.
pub const CLIENTS_MAX: usize = 64;
/// How long a client may take to say what it wants.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after no descriptor was available.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Sockets with something to read that are looked at in one turn.
const READY_MAX: usize = 32;
/// Enough for a packet and a look into `/proc`.
const STACK: usize = 256 * 1024;

/// The rendezvous, among what is watched.
const RENDEZVOUS: u64 = 0;

fn key_of(worker: WorkerId) -> u64 {
    worker.0 * 2 + 1
}

/// What the loop and the thread share.
#[derive(Debug)]
pub struct Receiver {
    epoll: Epoll,
    /// The secrets by which clients say which worker they belong to.
    tokens: Mutex<HashMap<String, WorkerId>>,
    notes: Mutex<HashMap<u64, Arc<Notes>>>,
    /// Clients that have not been heard to the end.
    clients: AtomicUsize,
    /// Whether the thread is handling something.
    works: AtomicBool,
    /// Whether the thread is to begin nothing new.
    pauses: AtomicBool,
}

/// The notification socket of one worker.
#[derive(Debug)]
struct Notes {
    socket: Arc<Foreign>,
    group: Pid,
    worker: WorkerId,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// A receiver that hears no worker yet.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn new() -> io::Result<Arc<Receiver>> {
        Ok(Arc::new(Receiver {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            tokens: Mutex::default(),
            notes: Mutex::default(),
            clients: AtomicUsize::new(0),
            works: AtomicBool::new(false),
            pauses: AtomicBool::new(false),
        }))
    }

    /// Hears a worker from now on: at the rendezvous by its token, and on its notification socket.
    ///
    /// # Errors
    /// When the kernel cannot watch one socket more.
    pub fn hear(&self, worker: WorkerId, token: &str, notify: &Arc<Foreign>, group: Pid) -> io::Result<()> {
        let socket = Arc::clone(notify);
        self.epoll.add(&*socket, EpollEvent::new(EpollFlags::EPOLLIN, key_of(worker)))?;
        lock(&self.notes).insert(key_of(worker), Arc::new(Notes { socket, group, worker }));
        lock(&self.tokens).insert(token.to_owned(), worker);
        Ok(())
    }

    /// Stops hearing it.
    pub fn forget(&self, worker: WorkerId, token: &str) {
        lock(&self.tokens).remove(token);
        if let Some(notes) = lock(&self.notes).remove(&key_of(worker)) {
            let _ = self.epoll.delete(&*notes.socket);
        }
    }

    /// Whether a client is being heard that would be cut off now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.clients.load(Ordering::SeqCst) > 0 || self.works.load(Ordering::SeqCst)
    }

    /// Begins nothing new from now on; what comes waits in the sockets. If a client is being heard, returns false and
    /// changes nothing.
    pub fn pause(&self) -> bool {
        self.pauses.store(true, Ordering::SeqCst);
        let busy = self.is_busy();
        if busy {
            self.go_on();
        }
        !busy
    }

    /// Goes on after a pause.
    pub fn go_on(&self) {
        self.pauses.store(false, Ordering::SeqCst);
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(self: &Arc<Self>, rendezvous: Arc<OwnedFd>, events: Events) -> io::Result<()> {
        self.epoll.add(&*rendezvous, EpollEvent::new(EpollFlags::EPOLLIN, RENDEZVOUS))?;
        let shared = Arc::clone(self);
        let begin = move || Thread::new(shared, rendezvous, events).work();
        std::thread::Builder::new().name("rendezvous".to_owned()).stack_size(STACK).spawn(begin)?;
        Ok(())
    }
}

/// A client that is connected and proven to be of a worker.
#[derive(Debug)]
struct Client {
    key: u64,
    socket: Foreign,
    since: Instant,
}

/// Ends the thread, because the master has ended.
struct Ended;

/// The thread.
struct Thread {
    shared: Arc<Receiver>,
    rendezvous: Arc<OwnedFd>,
    events: Events,
    /// The oldest first.
    clients: VecDeque<Client>,
    next_key: u64,
    interrupter: Option<Interrupter>,
}

impl Thread {
    fn new(shared: Arc<Receiver>, rendezvous: Arc<OwnedFd>, events: Events) -> Thread {
        let interrupter = Interrupter::of_this_thread();
        if let Err(error) = &interrupter {
            warn!(%error, "no timer: a stranger's socket can hold up notifications of workers, though no connection");
        }
        Thread { shared, rendezvous, events, clients: VecDeque::new(), next_key: 2, interrupter: interrupter.ok() }
    }

    /// Does something that a stranger can prolong.
    fn soon<T>(&self, doing: impl FnOnce() -> T) -> T {
        match &self.interrupter {
            Some(interrupter) => interrupter.during(doing),
            None => doing(),
        }
    }

    fn work(mut self) {
        let mut ready = [EpollEvent::empty(); READY_MAX];
        loop {
            let count = self.shared.epoll.wait(&mut ready, self.timeout());
            self.shared.works.store(true, Ordering::SeqCst);
            if self.shared.pauses.load(Ordering::SeqCst) {
                self.shared.works.store(false, Ordering::SeqCst);
                std::thread::sleep(EXHAUSTED_PAUSE);
                continue;
            }
            for event in ready.iter().take(count.unwrap_or(0)) {
                let heard = match event.data() {
                    RENDEZVOUS => {
                        self.open();
                        Ok(())
                    }
                    key if key % 2 == 1 => self.note(key),
                    key => self.visit(key),
                };
                if let Err(Ended) = heard {
                    return;
                }
            }
            self.send_away(|client| client.since.elapsed() >= CLIENT_TIMEOUT);
            self.shared.works.store(false, Ordering::SeqCst);
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let left = self.clients.front().map(|client| CLIENT_TIMEOUT.saturating_sub(client.since.elapsed()));
        // A millisecond more, so that the time is over then.
        left.and_then(|left| EpollTimeout::try_from(left + Duration::from_millis(1)).ok()).unwrap_or(EpollTimeout::NONE)
    }

    /// Accepts a client, if it is of a worker.
    fn open(&mut self) {
        let client = match SockRef::from(&*self.rendezvous).accept() {
            Ok((client, _)) => OwnedFd::from(client),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => return,
            Err(error) => {
                warn!(%error, "cannot let a worker's process in");
                return std::thread::sleep(EXHAUSTED_PAUSE);
            }
        };
        let groups = |group: Pid| lock(&self.shared.notes).values().any(|notes| notes.group == group);
        let trusted = credentials::peer(client.as_fd()).is_ok_and(|peer| credentials::is_trusted(&peer, groups));
        if !trusted {
            self.soon(|| drop(client));
            return strange("a process of another user that no worker started connected to the rendezvous socket");
        }
        if self.clients.len() >= CLIENTS_MAX {
            debug!(CLIENTS_MAX, "too many clients at once, the oldest has to go");
            let oldest = self.clients.front().map(|client| client.key);
            self.send_away(|client| Some(client.key) == oldest);
        }
        let key = self.next_key;
        self.next_key += 2;
        if self.shared.epoll.add(&client, EpollEvent::new(EpollFlags::EPOLLIN, key)).is_ok() {
            self.clients.push_back(Client { key, socket: Foreign::from(client), since: Instant::now() });
            self.shared.clients.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn send_away(&mut self, whom: impl Fn(&Client) -> bool) {
        let before = self.clients.len();
        self.clients.retain(|client| !whom(client));
        self.shared.clients.fetch_sub(before - self.clients.len(), Ordering::SeqCst);
    }

    /// Reads a client's packet and passes it on if its token is a worker's.
    fn visit(&mut self, key: u64) -> Result<(), Ended> {
        let found = self.clients.iter().enumerate().find(|(_, client)| client.key == key);
        let Some((index, client)) = found else { return Ok(()) };
        let said = channel::read(client.socket.as_fd());
        if matches!(&said, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return Ok(());
        }
        let Some(client) = self.clients.remove(index) else { return Ok(()) };
        let _ = self.shared.epoll.delete(&client.socket);
        let heard = match said {
            Ok(Some(Message::Packet { packet, fds, sender })) => {
                let worker = packet.token.as_ref().and_then(|token| lock(&self.shared.tokens).get(token).copied());
                match worker {
                    Some(worker) => {
                        let rendezvous = Some(client.socket);
                        self.tell(Event::Packet(FromWorker { worker, packet, fds, sender, rendezvous }))
                    }
                    None => {
                        strange("a process without a worker's token connected to the rendezvous socket");
                        Ok(())
                    }
                }
            }
            Ok(Some(Message::Malformed(_))) => {
                strange("a process that connected to the rendezvous socket sent a packet that makes no sense");
                Ok(())
            }
            Ok(None) | Err(_) => Ok(()),
        };
        self.shared.clients.fetch_sub(1, Ordering::SeqCst);
        heard
    }

    /// Reads a notification and passes it on. Requests for addresses come elsewhere.
    fn note(&self, key: u64) -> Result<(), Ended> {
        let Some(notes) = lock(&self.shared.notes).get(&key).cloned() else { return Ok(()) };
        let mut buffer = [0; PACKET_MAX];
        let Ok(received) = self.soon(|| fd::receive_words(notes.socket.as_fd(), &mut buffer)) else { return Ok(()) };
        let is_group = |group| group == notes.group;
        if !received.sender.is_some_and(|sender| credentials::is_trusted(&sender, is_group)) {
            return Ok(());
        }
        let worker = notes.worker;
        self.tell(match packet::read(buffer.get(..received.len).unwrap_or_default()) {
            Ok(mut packet) => {
                packet.says.retain(packet::FromWorker::is_notification);
                Event::Packet(FromWorker { worker, packet, fds: Vec::new(), sender: received.sender, rendezvous: None })
            }
            Err(what) => Event::Malformed { worker, what },
        })
    }

    /// Passes an event on. Waits while the loop has more than enough to do.
    fn tell(&self, event: Event) -> Result<(), Ended> {
        self.events.send_blocking(event).map_err(|_| Ended)
    }
}

/// Logs that a process connected that should not, but not each time: any process on the machine can.
fn strange(what: &str) {
    static STRANGERS: AtomicU64 = AtomicU64::new(0);
    let times = STRANGERS.fetch_add(1, Ordering::Relaxed) + 1;
    if times.is_power_of_two() {
        warn!(times, "{what}");
    }
}
