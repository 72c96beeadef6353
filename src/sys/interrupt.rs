//! Cutting short what makes a thread wait in the kernel.
//!
//! The last close of a TCP socket with `SO_LINGER` and something undelivered waits for as long as whoever set
//! it says, years if wanted, and nothing that the closing side can give along changes that. But a signal ends
//! the wait (`sk_stream_wait_close` in net/core/stream.c), and the socket is closed all the same. It is the same
//! whether the close is a call, comes from a packet that nobody wants, or from a socket in whose queue
//! such a packet lies: all of that happens in the thread that let go of it (`task_work_run`, kernel/task_work.c).

use nix::sys::signal::SigSet;
use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::time::Duration;

/// How long a thread may wait before it is interrupted, again and again until it comes back.
const PATIENCE: Duration = Duration::from_millis(2);

/// The signal that interrupts: one of those that have no meaning of their own (`signal(7)`).
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 7
}

/// Interrupts one thread.
#[derive(Debug)]
pub struct Interrupter {
    timer: libc::timer_t,
}

impl Interrupter {
    /// Interrupts the thread that calls this.
    ///
    /// # Errors
    /// That of `timer_create(2)`: `EAGAIN` when the user has as many signals waiting as may be.
    pub fn of_this_thread() -> io::Result<Interrupter> {
        extern "C" fn nothing(_signal: libc::c_int) {}
        // SAFETY: zeroed structures are valid; the handler does nothing, and without SA_RESTART what it
        // interrupts ends. The set is made of one valid signal. `timer` is written before it is read.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            if libc::sigaction(signal(), &raw const action, null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal();
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = zeroed();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut set: libc::sigset_t = *SigSet::empty().as_ref();
            libc::sigaddset(&raw mut set, signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
            Ok(Interrupter { timer })
        }
    }

    /// Does something that then waits for `PATIENCE` in each call at the most.
    pub fn during<T>(&self, doing: impl FnOnce() -> T) -> T {
        self.set(PATIENCE);
        let done = doing();
        self.set(Duration::ZERO);
        done
    }

    fn set(&self, every: Duration) {
        let time = libc::timespec { tv_sec: 0, tv_nsec: every.subsec_nanos() as _ };
        let setting = libc::itimerspec { it_interval: time, it_value: time };
        // SAFETY: the timer is ours until this is dropped; the kernel reads one structure.
        unsafe { libc::timer_settime(self.timer, 0, &raw const setting, null_mut()) };
    }
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        // SAFETY: made in `of_this_thread`, deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}
