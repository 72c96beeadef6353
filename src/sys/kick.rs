//! Getting the master's loop out of an `accept` or a `close` that blocks.
//!
//! `accept(2)` knows no `MSG_DONTWAIT`, and `O_NONBLOCK` belongs to the open file: another holder of a listening
//! socket, the worker whose own it was or whoever passed it to the master, can clear it at any moment. The loop asks
//! such a socket only for what the kernel says is waiting ([`super::listen::waiting`]); a holder that takes that in
//! between can make it wait all the same. Then this thread sends the loop's thread a signal, and the call ends with
//! `EINTR`: its handler is without `SA_RESTART` (`signal(7)`, "Interruption of system calls and library functions by
//! signal handlers").
//!
//! No other call may notice that signal. So the thread says that one is on its way before it looks for the last time
//! whether the call is still the same one, and the loop goes on after a call only when none is.
//!
//! What was tried and given up: to make the file non-blocking in the handler and to let the call start again, since a
//! holder that clears it without pause wins that race thousands of times; `SO_RCVTIMEO` bounds the call, but every
//! accepted connection inherits it, and the other holder can change it; a copy of the descriptor shares the mode; opening a socket a second time through
//! `/proc` is not possible; io_uring accepts without waiting, but containers forbid it.
//!
//! It costs two stores in memory for each call, and while there are calls this thread looks once in `TICK`. While
//! there are none it sleeps.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// How often it is looked whether a call is still the same one. A call that blocks is ended after one to two of them.
const TICK: Duration = Duration::from_millis(10);

/// The signal: nobody else in this process uses it, and without its handler it has no effect (`signal(7)`).
const SIGNAL: libc::c_int = libc::SIGURG;

// A signal handler knows nothing but statics; there is one loop in a process.

/// The number of the call in which the loop is; 0 outside.
static CALL: AtomicU64 = AtomicU64::new(0);
/// How often the loop came to accept.
static TURNS: AtomicU64 = AtomicU64::new(0);
/// Whether the thread sleeps until it is woken.
static ASLEEP: AtomicBool = AtomicBool::new(false);
/// Whether a signal is on its way, or about to be sent.
static COMING: AtomicBool = AtomicBool::new(false);
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

    /// Does one call that can block; when it does, it ends with `EINTR`.
    #[inline]
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.calls.set(self.calls.get() + 1);
        CALL.store(self.calls.get(), SeqCst);
        // A loop that gets little of a processor may seem to be done between two calls.
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

/// Waits for the signal that was meant for a call which has just returned. It must not break off the next one: a
/// connection given to a supervised worker would be lost (`SECCOMP_IOCTL_NOTIF_ADDFD`).
#[cold]
fn settle() {
    while COMING.load(SeqCst) {
        // The kicker may need this processor, and a signal that was sent is handled on the way back.
        // SAFETY: no arguments.
        unsafe { libc::sched_yield() };
    }
}

/// The thread's whole life.
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

/// Ends the call if the loop is still in it. One whose signal is on its way needs no other.
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

/// So much stack, of which it needs little.
const STACK: usize = 64 * 1024;

fn handle_signal() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    // SAFETY: a zeroed sigaction is valid; the handler keeps to what a handler may do.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = arrived as extern "C" fn(libc::c_int) as libc::sighandler_t;
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

/// Runs in the loop's thread. That it runs ends the call.
extern "C" fn arrived(_signal: libc::c_int) {
    COMING.store(false, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::listen::{self, Accepted};
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

    /// A call that is just as long as the kicker's patience ends beside its signal, which must not reach the next one.
    #[test]
    fn the_signal_for_one_call_does_not_end_another() {
        let _loop = LOOP.lock().unwrap();
        let kicker = Kicker::start().unwrap();
        let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
        let mut interrupted = 0;
        for _ in 0..100 {
            kicker.attend();
            let end = Instant::now() + TICK;
            // What is measured is a call that takes this time, so it is spent.
            kicker.during(|| while Instant::now() < end {});
            let wait = epoll.wait(&mut [nix::sys::epoll::EpollEvent::empty()], 1u8);
            interrupted += u32::from(wait == Err(nix::errno::Errno::EINTR));
        }
        assert_eq!(interrupted, 0);
    }
}
