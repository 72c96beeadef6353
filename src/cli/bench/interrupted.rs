//! Signals that end a measurement early; what was measured until then is shown.

use crate::bench::stop::Stop;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Ctrl-C and similar signals.
pub struct Interrupted {
    pub stop: Stop,
    /// The signal that arrived.
    pub signal: Arc<AtomicI32>,
}

impl Interrupted {
    /// Watches for signals from now on. Call it before other threads start, or they would get the signals instead.
    pub fn watch() -> std::io::Result<Interrupted> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let (stop, signal) = (Stop::new()?, Arc::new(AtomicI32::new(0)));
        let (to_stop, to_signal) = (stop.clone(), Arc::clone(&signal));
        std::thread::Builder::new().name("bench-signals".to_owned()).spawn(move || {
            while let Ok(came) = signals.wait() {
                if to_stop.is_set() {
                    // Children die with this process, and the guard handles their children.
                    std::process::exit(128 + came as i32);
                }
                to_signal.store(came as i32, Ordering::SeqCst);
                to_stop.set();
            }
        })?;
        Ok(Interrupted { stop, signal })
    }
}
