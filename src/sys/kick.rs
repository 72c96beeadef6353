//! Getting the master's loop out of an `accept` or a `close` that blocks.
//!
//! `accept(2)` knows no `MSG_DONTWAIT`, and `O_NONBLOCK` belongs to the open file: another holder of a listening
//! socket, the worker whose own it was or whoever passed it to the master, can clear it at any moment. The loop asks
//! such a socket only for what the kernel says is waiting ([`super::listen::waiting`]); a holder that takes that in
//! between can make it wait all the same. Then this thread makes the file non-blocking again, by a signal whose
//! handler runs in the loop's own thread, and the call starts again and finds nothing.
//!
//! What was tried and given up: `SO_RCVTIMEO` bounds the call, but every accepted connection inherits it, and the
//! other holder can change it; a copy of the descriptor shares the mode; opening a socket a second time through
//! `/proc` is not possible; io_uring accepts without waiting, but containers forbid it.
//!
//! It costs two stores in memory for each call, and while there are calls this thread looks once in `TICK`. While
//! there are none it sleeps.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// How often it is looked whether a call is still the same one. A call that blocks is ended after one to two of them.
const TICK: Duration = Duration::from_millis(10);

/// The signal: nobody else in this process uses it, and without its handler it has no effect (`signal(7)`).
const SIGNAL: libc::c_int = libc::SIGURG;

// A signal handler knows nothing but statics; there is one loop in a process.

/// The number of the call in which the loop is; 0 outside.
static CALL: AtomicU64 = AtomicU64::new(0);
/// The socket of that call.
static SOCKET: AtomicI32 = AtomicI32::new(-1);
/// How often the loop came to accept.
static TURNS: AtomicU64 = AtomicU64::new(0);
/// Whether the thread sleeps until it is woken.
static ASLEEP: AtomicBool = AtomicBool::new(false);
/// Whether the thread is about to send the signal.
static KICKING: AtomicBool = AtomicBool::new(false);
/// Calls that waited because the file was blocking, and of which the loop was not told yet.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Whether the thread shall end.
static ENDED: AtomicBool = AtomicBool::new(false);

/// The thread that ends calls of the loop which block.
#[derive(Debug)]
pub struct Kicker {
    thread: Thread,
    /// For its end.
    joined: Option<JoinHandle<()>>,
    calls: Cell<u64>,
    turns: Cell<u64>,
}

impl Kicker {
    /// Starts the thread. Call from the thread of the loop, once.
    ///
    /// # Errors
    /// When no thread can be had, or the signal cannot be handled.
    pub fn start() -> io::Result<Kicker> {
        handle_signal()?;
        ENDED.store(false, SeqCst);
        // SAFETY: no arguments; it names the calling thread.
        let target = unsafe { libc::pthread_self() };
        let joined = std::thread::Builder::new().name("maitred-kicker".into()).stack_size(STACK).spawn(move || {
            watch(target);
        })?;
        Ok(Kicker { thread: joined.thread().clone(), joined: Some(joined), calls: Cell::new(0), turns: Cell::new(0) })
    }

    /// The loop is about to accept, or to close what workers have: from here on the thread looks at it.
    #[inline]
    pub fn attend(&self) {
        self.turns.set(self.turns.get().wrapping_add(1));
        // Written before it is read whether the thread sleeps, as the thread says that it sleeps before it reads this:
        // one of both sees the other.
        TURNS.store(self.turns.get(), SeqCst);
        self.wake();
    }

    /// Wakes the thread where it sleeps. After what it looks for was written: one of both sees the other.
    #[inline]
    fn wake(&self) {
        if ASLEEP.load(SeqCst) && ASLEEP.swap(false, SeqCst) {
            self.thread.unpark();
        }
    }

    /// Does one call on a socket that must not block.
    #[inline]
    pub fn during<T>(&self, socket: BorrowedFd<'_>, call: impl FnOnce() -> T) -> T {
        self.calls.set(self.calls.get() + 1);
        SOCKET.store(socket.as_raw_fd(), Relaxed);
        CALL.store(self.calls.get(), SeqCst);
        // A loop that gets little of a processor may seem to be done between two calls.
        self.wake();
        let done = call();
        CALL.store(0, SeqCst);
        if KICKING.load(SeqCst) {
            settle();
        }
        done
    }

    /// Closes a connection that was handed over. If its worker has closed it already, this close is the last one,
    /// and with `SO_LINGER` it waits for the client (`inet_release` in net/ipv4/af_inet.c) until a signal comes
    /// (`sk_stream_wait_close` in net/core/stream.c); the socket is closed all the same.
    #[inline]
    pub fn close(&self, connection: OwnedFd) {
        self.calls.set(self.calls.get() + 1);
        SOCKET.store(-1, Relaxed);
        CALL.store(self.calls.get(), SeqCst);
        self.wake();
        drop(connection);
        CALL.store(0, SeqCst);
        if KICKING.load(SeqCst) {
            settle();
        }
    }

    /// Whether a call waited until it was ended, since this was last asked.
    #[must_use]
    pub fn has_kicked(&self) -> bool {
        BLOCKED.load(Relaxed) > 0 && BLOCKED.swap(0, SeqCst) > 0
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        ENDED.store(true, SeqCst);
        self.thread.unpark();
        if let Some(joined) = self.joined.take() {
            let _ = joined.join();
        }
    }
}

/// The signal may be on its way to a call that has just returned. It must not break off the next one: a connection
/// given to a supervised worker would be lost (`SECCOMP_IOCTL_NOTIF_ADDFD`).
#[cold]
fn settle() {
    while KICKING.load(SeqCst) {
        std::hint::spin_loop();
    }
    // A signal that was sent to this thread is handled at the latest when this returns from the kernel.
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

/// The thread's whole life.
fn watch(target: libc::pthread_t) {
    let (mut turns, mut call) = (0, 0);
    while !ENDED.load(SeqCst) {
        let now = (TURNS.load(SeqCst), CALL.load(SeqCst));
        if now.1 != 0 && now.1 == call {
            KICKING.store(true, SeqCst);
            if CALL.load(SeqCst) == call {
                // SAFETY: the loop's thread lives for as long as this one, which it joins.
                unsafe { libc::pthread_kill(target, SIGNAL) };
            }
            KICKING.store(false, SeqCst);
        }
        let quiet = now == (turns, 0);
        (turns, call) = now;
        if !quiet {
            std::thread::park_timeout(TICK);
            continue;
        }
        ASLEEP.store(true, SeqCst);
        if TURNS.load(SeqCst) == turns && CALL.load(SeqCst) == 0 && !ENDED.load(SeqCst) {
            std::thread::park();
        }
        ASLEEP.store(false, SeqCst);
    }
}

/// So much stack, of which it needs little.
const STACK: usize = 64 * 1024;

fn handle_signal() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    // SAFETY: a zeroed sigaction is valid; the handler keeps to what a handler may do. Calls start again after it,
    // so that none but the one that is meant notices anything.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = unblock as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // All others stay with the thread that handles them.
    let mut set = SigSet::empty();
    set.add(Signal::SIGURG);
    Ok(nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?)
}

/// Runs in the loop's thread, within the call that blocks.
extern "C" fn unblock(_signal: libc::c_int) {
    if CALL.load(SeqCst) == 0 {
        return;
    }
    let socket = SOCKET.load(Relaxed);
    // SAFETY: plain system calls, which a handler may make; the call that was interrupted has the socket open.
    // `errno` is as it was afterwards.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::fcntl(socket, libc::F_GETFL);
        if flags >= 0 && flags & libc::O_NONBLOCK == 0 {
            libc::fcntl(socket, libc::F_SETFL, flags | libc::O_NONBLOCK);
            BLOCKED.fetch_add(1, SeqCst);
        }
        *libc::__errno_location() = errno;
    }
}
