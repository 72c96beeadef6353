//! Whether anything goes on, so that the looks at the workers may come seldom while nothing does: an idle master
//! wakes for a look every two seconds. Who hands a connection over says so, which costs nothing unless all was quiet before.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// What the looks at the workers are paced by.
#[derive(Debug, Default)]
pub struct Activity {
    quiet: Cell<bool>,
    begins: Notify,
}

impl Activity {
    /// Something goes on.
    #[inline]
    pub fn begin(&self) {
        if self.quiet.replace(false) {
            self.begins.notify_waiters();
        }
    }

    /// Nothing waits for a worker, as a look at all of them found.
    pub fn end(&self) {
        self.quiet.set(true);
    }

    /// Whether nothing goes on.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet.get()
    }

    /// Waits until something goes on, at most until the next beat while nothing does.
    pub async fn changed(&self) {
        if self.is_quiet() {
            tokio::select! {
                () = self.begins.notified() => {}
                () = next_beat(Duration::ZERO) => {}
            }
        }
    }
}

/// How often an idle master looks. A timer that is longer than 64 ms wakes the process twice, since the runtime keeps
/// it in a wheel of wheels (tokio's `runtime/time/wheel`).
pub const BEAT: Duration = Duration::from_secs(2);

/// Sleeps for at least so long, up to a beat of a clock that all in this process share: what looks now and then
/// looks at the same time, and the process wakes once for all.
pub async fn next_beat(at_least: Duration) {
    /// Less than this before it, the beat counts as begun already.
    const SOON: Duration = Duration::from_millis(10);
    static BASE: OnceLock<Instant> = OnceLock::new();
    let base = *BASE.get_or_init(Instant::now);
    let earliest = base.elapsed() + at_least + SOON;
    sleep_until(base + BEAT * (earliest.as_secs() / BEAT.as_secs() + 1) as u32).await;
}
