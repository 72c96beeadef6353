//! Gets the master's loop out of an `accept` or a `close` that blocks.
//!
//! `accept(2)` has no `MSG_DONTWAIT`, and `O_NONBLOCK` belongs to the open file: another holder of a listening socket
//! (the worker that made it, or the process that passed it to the master) can clear it at any moment. The loop
//! accepts only as many connections from such a socket as the kernel says are waiting ([`super::listen::waiting`]); a
//! holder that takes them in between can still make it wait. Then the thread in this module sends the loop's thread a
//! signal, and the call ends with `EINTR`: the signal's handler is without `SA_RESTART` (`signal(7)`, "Interruption
//! of system calls and library functions by signal handlers").
//!
//! No other call may be interrupted by that signal. So the thread announces the signal before it checks for the last
//! time whether the call is still the same one, and after a call the loop goes on only when no signal is on its way.
//!
//! What was tried and given up: making the file non-blocking in the handler and letting the call start again, since a
//! holder that clears the flag without pause wins that race thousands of times; `SO_RCVTIMEO`, which limits the call,
//! but every accepted connection inherits it, and the other holder can change it; a copy of the descriptor, which
//! shares the mode; opening a socket a second time through `/proc`, which is not possible; io_uring, which accepts
//! without waiting, but containers forbid it.
//!
//! The cost is two stores in memory for each call. While there are calls, the thread checks once in each `TICK`;
//! while there are none, it sleeps.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// How often the thread checks whether a call is still the same one. A call that blocks is ended after one to two of
/// these intervals.
const TICK: Duration = Duration::from_millis(10);

/// The signal: nothing else in this process uses it, and without its handler it has no effect (`signal(7)`).
const SIGNAL: libc::c_int = libc::SIGURG;

// A signal handler can use only statics; there is one loop in a process.

/// The number of the call in which the loop is; 0 outside a call.
static CALL: AtomicU64 = AtomicU64::new(0);
/// How often the loop came to accept.
static TURNS: AtomicU64 = AtomicU64::new(0);
/// Whether the thread sleeps until it is woken.
static ASLEEP: AtomicBool = AtomicBool::new(false);
/// Whether a signal is on its way, or about to be sent.
static COMING: AtomicBool = AtomicBool::new(false);
/// Whether the thread is to end.
static ENDED: AtomicBool = AtomicBool::new(false);

/// The thread that ends blocking calls of the loop.
#[derive(Debug)]
pub struct Kicker {
    thread: Thread,
    /// For joining it at its end.
    joined: Option<JoinHandle<()>>,
    calls: Cell<u64>,
    turns: Cell<u64>,
}

impl Kicker {
    /// Starts the thread. Call this once, from the thread of the loop.
    ///
    /// # Errors
    /// When no thread can be started, or the signal cannot be handled.
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

    /// The loop is about to accept connections, or to close ones that workers have: from here on the thread checks
    /// the loop.
    #[inline]
    pub fn attend(&self) {
        self.turns.set(self.turns.get().wrapping_add(1));
        // Written before `ASLEEP` is read, as the thread writes `ASLEEP` before it reads this: at least one of the
        // two sees the other's write.
        TURNS.store(self.turns.get(), SeqCst);
        self.wake();
    }

    /// Wakes the thread if it sleeps. Call this after writing what the thread reads: at least one of the two sees the
    /// other's write.
    #[inline]
    fn wake(&self) {
        if ASLEEP.load(SeqCst) && ASLEEP.swap(false, SeqCst) {
            self.thread.unpark();
        }
    }

    /// Does one call that can block; if it blocks, it ends with `EINTR`.
    #[inline]
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.calls.set(self.calls.get() + 1);
        CALL.store(self.calls.get(), SeqCst);
        // A loop that gets little processor time may seem idle between two calls.
        self.wake();
        let done = call();
        CALL.store(0, SeqCst);
        if COMING.load(SeqCst) {
            settle();
        }
        done
    }

    /// Closes a connection that was handed over. If its worker has closed it already, this close is the last one,
    /// and with `SO_LINGER` it waits for the client (`inet_release` in net/ipv4/af_inet.c) until a signal comes
    /// (`sk_stream_wait_close` in net/core/stream.c); the socket is closed all the same.
    #[inline]
    pub fn close(&self, connection: OwnedFd) {
        self.during(|| drop(connection));
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

/// Waits for the signal that was meant for a call which has just returned. It must not interrupt the next one: a
/// connection given to a supervised worker would be lost (`SECCOMP_IOCTL_NOTIF_ADDFD`).
#[cold]
fn settle() {
    while COMING.load(SeqCst) {
        // The kicker may need this processor, and a signal that was sent is handled on return from the call.
        // SAFETY: no arguments.
        unsafe { libc::sched_yield() };
    }
}

/// What the thread does from its start to its end.
fn watch(target: libc::pthread_t) {
    let (mut turns, mut call) = (0, 0);
    while !ENDED.load(SeqCst) {
        let now = (TURNS.load(SeqCst), CALL.load(SeqCst));
        if now.1 != 0 && now.1 == call {
            kick(target, call);
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

/// Ends the call if the loop is still in it. A call whose signal is on its way needs no second one.
fn kick(target: libc::pthread_t, call: u64) {
    if COMING.swap(true, SeqCst) {
        return;
    }
    // SAFETY: the loop's thread lives for as long as this one, which it joins.
    let sent = CALL.load(SeqCst) == call && unsafe { libc::pthread_kill(target, SIGNAL) } == 0;
    if !sent {
        COMING.store(false, SeqCst);
    }
}

/// The thread's stack, of which it needs little.
const STACK: usize = 64 * 1024;

fn handle_signal() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    // SAFETY: a zeroed sigaction is valid; the handler does only what a handler may do.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = arrived as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // All other signals stay with the thread that handles them.
    let mut set = SigSet::empty();
    set.add(Signal::SIGURG);
    Ok(nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?)
}

/// Runs in the loop's thread. That it runs ends the call.
extern "C" fn arrived(_signal: libc::c_int) {
    COMING.store(false, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::listen::{self, Accepted};
    use std::time::Instant;

    /// There is one loop in a process.
    static LOOP: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// As long as a test may wait for what should take two ticks.
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn a_call_that_blocks_ends_whatever_another_holder_does_to_the_mode() {
        let _loop = LOOP.lock().unwrap();
        let kicker = Kicker::start().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = listener.try_clone().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    holder.set_nonblocking(false).unwrap();
                }
            });
            let listener = socket2::Socket::from(listener);
            for _ in 0..30 {
                let begun = Instant::now();
                kicker.attend();
                let got = kicker.during(|| listen::accept(&listener)).unwrap();
                assert!(matches!(got, Accepted::Interrupted), "{got:?}");
                assert!(begun.elapsed() < LONG, "caught for {:?}", begun.elapsed());
            }
            done.store(true, SeqCst);
        });
    }

    /// A call that is just as long as the kicker's patience ends at the same time as its signal comes, which must not
    /// reach the next call.
    #[test]
    fn the_signal_for_one_call_does_not_end_another() {
        let _loop = LOOP.lock().unwrap();
        let kicker = Kicker::start().unwrap();
        let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
        let mut interrupted = 0;
        for _ in 0..100 {
            kicker.attend();
            let end = Instant::now() + TICK;
            // The test needs a call that takes this time, so it spins.
            kicker.during(|| while Instant::now() < end {});
            let wait = epoll.wait(&mut [nix::sys::epoll::EpollEvent::empty()], 1u8);
            interrupted += u32::from(wait == Err(nix::errno::Errno::EINTR));
        }
        assert_eq!(interrupted, 0);
    }
}
