//! Ends a thread's wait in the kernel early.
//!
//! The last close of a TCP socket with `SO_LINGER` and undelivered data waits as long as the process that set the
//! option said. That can be years, and no parameter of the closing side changes it. But a signal ends the wait
//! (`sk_stream_wait_close` in net/core/stream.c), and the socket is closed all the same. This holds whether the close
//! is a call, comes from a packet that is discarded, or comes from a socket with such a packet in its queue: all of
//! that happens in the thread that released it (`task_work_run`, kernel/task_work.c).

use nix::sys::signal::SigSet;
use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::time::Duration;

/// How long a thread may wait before it is interrupted, repeatedly until it returns.
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
    /// That of `timer_create(2)`: `EAGAIN` when the user has as many pending signals as are allowed.
    pub fn of_this_thread() -> io::Result<Interrupter> {
        extern "C" fn nothing(_signal: libc::c_int) {}
        // SAFETY: zeroed structures are valid; the handler does nothing, and without SA_RESTART the call that it
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

    /// Runs `doing`, in which each call then waits for `PATIENCE` at most.
    pub fn during<T>(&self, doing: impl FnOnce() -> T) -> T {
        self.set(PATIENCE);
        let done = doing();
        self.set(Duration::ZERO);
        done
    }

    fn set(&self, every: Duration) {
        let time = libc::timespec { tv_sec: 0, tv_nsec: every.subsec_nanos() as _ };
        let setting = libc::itimerspec { it_interval: time, it_value: time };
        // SAFETY: the timer belongs to `self` until it is dropped; the kernel reads one structure.
        unsafe { libc::timer_settime(self.timer, 0, &raw const setting, null_mut()) };
    }
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        // SAFETY: made in `of_this_thread`, deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}
