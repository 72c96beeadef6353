//! Looks after the guard, which ends the workers if the master is killed.

use crate::sys::process::guard::Guard;
use crate::sys::watch;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, warn};

/// The first and the longest pause between two attempts to replace a guard that ended; it doubles each time.
const GUARD_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

/// Starts a new guard whenever one has ended, which happens only if it is killed.
pub async fn look_after_guard(guard: Rc<Guard>) {
    let [shortest, longest] = GUARD_PAUSES;
    let mut pause = shortest;
    loop {
        let ended = match guard.watched().and_then(watch::readable) {
            Ok(pidfd) => pidfd.readable().await.is_ok(),
            Err(error) => {
                debug!(%error, "the guard cannot be watched");
                false
            }
        };
        let process = guard.process();
        if !ended && nix::sys::signal::kill(process, None).is_ok() {
            // It exists, but nothing will report when it ends.
            sleep(longest).await;
            continue;
        }
        match guard.replace() {
            Ok(()) => {
                let (ended, pid) = (process.as_raw(), guard.process().as_raw());
                warn!(
                    ended,
                    pid, "the guard that ends workers should this master be killed was killed itself; started another"
                );
                pause = shortest;
            }
            Err(error) => {
                if pause == shortest {
                    warn!(%error, "the guard that ends workers should this master be killed was killed itself, and no other can be had; trying again");
                }
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}
