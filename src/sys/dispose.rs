//! Closes descriptors that came from other processes, in separate threads.
//!
//! A close can take as long as the sender of the descriptor wants. Examples are a socket with `SO_LINGER`, a socket
//! with such a socket in its queue, and a file of a file system that a process of the sender serves. The master's
//! loop never does such a close. Separate threads do it, and a close that can be interrupted is interrupted there
//! soon.

use crate::sys::interrupt::Interrupter;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
#[cfg(feature = "tokio")]
use std::time::Duration;

/// Closing threads. A file whose close nothing interrupts occupies one of them.
pub const CLOSERS: usize = 2;
/// Descriptors that may wait to be closed. From `BUSY_FROM` on the code that brings them waits; one more than this
/// limit stays open.
pub const WAITING_MAX: usize = 4096;
/// From this many on, no more should be received.
#[cfg(feature = "tokio")]
const BUSY_FROM: usize = 64;
/// How long code that brings descriptors waits at most, and how often it checks.
#[cfg(feature = "tokio")]
const WAIT_MAX: Duration = Duration::from_secs(1);
#[cfg(feature = "tokio")]
const WAIT_LOOK: Duration = Duration::from_millis(2);
/// Enough for a few calls.
const STACK: usize = 64 * 1024;

static CLOSING: OnceLock<SyncSender<OwnedFd>> = OnceLock::new();
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Starts the closing threads. In a program that has none, a descriptor is closed at once.
///
/// # Errors
/// When no thread can be started.
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
    // Another call came first: its threads do the work, and these end.
    let _ = CLOSING.set(sender);
    Ok(())
}

fn close_all(receiver: &Mutex<Receiver<OwnedFd>>) {
    // Without a timer this thread may wait for long, but the loop does not.
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

/// Closes a descriptor in one of the closing threads.
pub fn dispose(fd: OwnedFd) {
    let Some(closing) = CLOSING.get() else { return drop(fd) };
    WAITING.fetch_add(1, Ordering::Relaxed);
    if let Err(unsent) = closing.try_send(fd) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        let (std::sync::mpsc::TrySendError::Full(fd) | std::sync::mpsc::TrySendError::Disconnected(fd)) = unsent;
        // Losing one descriptor is better than a close that never returns.
        std::mem::forget(fd);
    }
}

/// Closes these when nothing waits to be closed any more, or after `WAIT_MAX`: the two closing threads keep no order.
#[cfg(feature = "tokio")]
pub async fn after_the_others(fds: Vec<Foreign>) {
    until_at_most(0).await;
    drop(fds);
}

/// Waits until nothing waits to be closed, or for `WAIT_MAX`.
#[cfg(feature = "tokio")]
pub async fn until_all_closed() {
    until_at_most(0).await;
}

/// Waits until at most `few` descriptors wait to be closed, but no longer than [`WAIT_MAX`].
#[cfg(feature = "tokio")]
async fn until_at_most(few: usize) {
    let mut waited = Duration::ZERO;
    while WAITING.load(Ordering::Relaxed) > few && waited < WAIT_MAX {
        tokio::time::sleep(WAIT_LOOK).await;
        waited += WAIT_LOOK;
    }
}

/// Makes the close of a connection not wait for its peer. A file that is no socket stays as it is.
pub fn no_linger(fd: BorrowedFd<'_>) {
    let _ = socket2::SockRef::from(&fd).set_linger(None);
}

/// Waits while more descriptors are to be closed than can be closed soon. Code that receives descriptors calls it
/// between two packets, so that a process that sends them without end slows down only itself.
#[cfg(feature = "tokio")]
pub async fn keep_up() {
    until_at_most(BUSY_FROM).await;
}

/// Whether something waits to be closed.
#[must_use]
pub fn is_busy() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Releases a socket that other code in this process may also have; the last release closes it in a closing thread.
pub fn let_go(socket: Rc<socket2::Socket>) {
    if let Ok(socket) = Rc::try_unwrap(socket) {
        dispose(socket.into());
    }
}

/// A descriptor that another process may also hold and control. Dropping it closes it in a closing thread.
#[derive(Debug)]
pub struct Foreign(ManuallyDrop<OwnedFd>);

impl Foreign {
    /// The descriptor, which the caller has to close from now on.
    #[must_use]
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once: `this` is never dropped, and nothing uses it any more.
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
        // SAFETY: taken once: nothing uses it after this.
        dispose(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}
