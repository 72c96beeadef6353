//! Closing what came from others, aside.
//!
//! A close can take as long as whoever sent the descriptor wants: `SO_LINGER` on a socket, a socket in whose queue
//! such a one lies, a file of a file system in which somebody's own process answers. The master's loop
//! never does it. Threads of their own do, and what can be interrupted there is, soon.

use super::interrupt::Interrupter;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
#[cfg(feature = "tokio")]
use std::time::Duration;

/// Threads that close. A file whose close nothing interrupts keeps one for itself.
pub const CLOSERS: usize = 2;
/// Descriptors that may wait to be closed. Whoever brings them waits from `BUSY_FROM` on; one more than this is
/// closed by who has it.
pub const WAITING_MAX: usize = 4096;
/// From so many on it is time to receive no more.
#[cfg(feature = "tokio")]
const BUSY_FROM: usize = 64;
/// How long somebody who brings descriptors waits at the most, and how often it is looked.
#[cfg(feature = "tokio")]
const WAIT_MAX: Duration = Duration::from_secs(1);
#[cfg(feature = "tokio")]
const WAIT_LOOK: Duration = Duration::from_millis(2);
/// Enough for a few calls.
const STACK: usize = 64 * 1024;

static CLOSING: OnceLock<SyncSender<OwnedFd>> = OnceLock::new();
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Starts the threads that close. In a program that has none, what is disposed of is closed at once.
///
/// # Errors
/// When a thread cannot be had.
pub fn start() -> io::Result<()> {
    if CLOSING.get().is_some() {
        return Ok(());
    }
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..CLOSERS {
        let receiver = Arc::clone(&receiver);
        std::thread::Builder::new().name("closing".to_owned()).stack_size(STACK).spawn(move || close_all(&receiver))?;
    }
    // Another call came first: its threads do it, and these end.
    let _ = CLOSING.set(sender);
    Ok(())
}

fn close_all(receiver: &Mutex<Receiver<OwnedFd>>) {
    // Where there is no timer to be had this thread may wait for long, and the loop does not.
    let interrupter = Interrupter::of_this_thread().ok();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(fd) = next else { return };
        match &interrupter {
            Some(interrupter) => interrupter.during(|| drop(fd)),
            None => drop(fd),
        }
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes a descriptor aside.
pub fn dispose(fd: OwnedFd) {
    let Some(closing) = CLOSING.get() else { return drop(fd) };
    WAITING.fetch_add(1, Ordering::Relaxed);
    if let Err(unsent) = closing.try_send(fd) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        let (std::sync::mpsc::TrySendError::Full(fd) | std::sync::mpsc::TrySendError::Disconnected(fd)) = unsent;
        // Rather one descriptor less than a close that never returns.
        std::mem::forget(fd);
    }
}

/// Closes these when nothing waits to be closed any more, or after `WAIT_MAX`: two threads do it, in no order.
#[cfg(feature = "tokio")]
pub async fn after_the_others(fds: Vec<Foreign>) {
    until_at_most(0).await;
    drop(fds);
}

/// Waits until so few wait to be closed, at most [`WAIT_MAX`].
#[cfg(feature = "tokio")]
async fn until_at_most(few: usize) {
    let mut waited = Duration::ZERO;
    while WAITING.load(Ordering::Relaxed) > few && waited < WAIT_MAX {
        tokio::time::sleep(WAIT_LOOK).await;
        waited += WAIT_LOOK;
    }
}

/// Lets the close of a connection not wait for its peer. What is no socket stays as it is.
pub fn no_linger(fd: BorrowedFd<'_>) {
    let _ = socket2::SockRef::from(&fd).set_linger(None);
}

/// Waits while more is to be closed than can be soon. For those who receive descriptors, between two packets: so
/// that one who sends them without end slows itself, and nobody else.
#[cfg(feature = "tokio")]
pub async fn keep_up() {
    until_at_most(BUSY_FROM).await;
}

/// Whether something waits to be closed.
#[must_use]
pub fn is_busy() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Lets go of a socket that others in this process may have, too; the last one closes it aside.
pub fn let_go(socket: Rc<socket2::Socket>) {
    if let Ok(socket) = Rc::try_unwrap(socket) {
        dispose(socket.into());
    }
}

/// A descriptor that another process may hold, too, and has the say over: closed aside when it is dropped.
#[derive(Debug)]
pub struct Foreign(ManuallyDrop<OwnedFd>);

impl Foreign {
    /// The descriptor, whose close is the caller's affair from now on.
    #[must_use]
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once: `this` is never dropped, and nobody has it any more.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl From<OwnedFd> for Foreign {
    fn from(fd: OwnedFd) -> Foreign {
        Foreign(ManuallyDrop::new(fd))
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Foreign {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: taken once: nothing comes after this.
        dispose(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}
