//! Whether anything goes on. While nothing does, the looks at the workers may be rare: an idle master wakes for a look
//! every two seconds. Code that hands a connection over reports it, which costs nothing unless all was quiet before.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Sets the pace of the looks at the workers.
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

    /// A look at all workers found that nothing waits for them.
    pub fn end(&self) {
        self.quiet.set(true);
    }

    /// Whether nothing goes on.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet.get()
    }

    /// Waits until something goes on. While nothing does, waits at most until the next beat.
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
/// it in a hierarchy of wheels (tokio's `runtime/time/wheel`).
pub const BEAT: Duration = Duration::from_secs(2);

/// Sleeps for at least this long, up to a beat of a clock that this process shares: everything that looks from time to
/// time looks at the same time, and the process wakes once for all.
pub async fn next_beat(at_least: Duration) {
    /// Less than this before a beat, the beat counts as begun already.
    const SOON: Duration = Duration::from_millis(10);
    static BASE: OnceLock<Instant> = OnceLock::new();
    let base = *BASE.get_or_init(Instant::now);
    let earliest = base.elapsed() + at_least + SOON;
    sleep_until(base + BEAT * (earliest.as_secs() / BEAT.as_secs() + 1) as u32).await;
}
