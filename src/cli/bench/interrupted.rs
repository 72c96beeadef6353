//! Signals that end a measurement early, after which what was measured is shown.

use crate::bench::stop::Stop;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Ctrl-C and its like.
pub struct Interrupted {
    pub stop: Stop,
    /// The signal that came.
    pub signal: Arc<AtomicI32>,
}

impl Interrupted {
    /// Watches for signals from now on. Threads that exist already would get them instead.
    pub fn watch() -> std::io::Result<Interrupted> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let (stop, signal) = (Stop::new()?, Arc::new(AtomicI32::new(0)));
        let (to_stop, to_signal) = (stop.clone(), Arc::clone(&signal));
        std::thread::Builder::new().name("bench-signals".to_owned()).spawn(move || {
            while let Ok(came) = signals.wait() {
                if to_stop.is_set() {
                    // Children die with this process, and the guard sees to theirs.
                    std::process::exit(128 + came as i32);
                }
                to_signal.store(came as i32, Ordering::SeqCst);
                to_stop.set();
            }
        })?;
        Ok(Interrupted { stop, signal })
    }
}
