//! Reloads when files change. A thread of its own hears of changes and waits until it is quiet.

use super::tree::Tree;
use super::{Event, WatchError};
use crate::config::triggers::Triggers;
use crate::reports::Reports;
use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Config, RecommendedWatcher, Watcher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing::warn;

/// Changes that may wait for the thread. Beyond that the tree is looked at again, as when the kernel's own queue
/// overflows.
const CHANGES_MAX: usize = 4096;
/// How often a directory that is gone is looked for, if nothing reports that it is there again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After how many delays a reload comes although it is never quiet.
const DELAYS_MAX: u32 = 10;

/// Watches from now on.
///
/// # Errors
/// [`WatchError`] for what cannot be watched at the start. What cannot be watched later is logged.
pub fn watch(triggers: &Triggers, reports: Reports<Event>) -> Result<(), WatchError> {
    let first = || triggers.watch.first().cloned().unwrap_or_default();
    let (sender, changes) = sync_channel::<notify::Event>(CHANGES_MAX);
    let missed = Arc::new(AtomicBool::new(false));
    let overflowed = Arc::clone(&missed);
    let hear = move |event: notify::Result<notify::Event>| match event.map(|event| sender.try_send(event)) {
        Ok(Ok(()) | Err(TrySendError::Disconnected(_))) => {}
        Ok(Err(TrySendError::Full(_))) | Err(_) => overflowed.store(true, Relaxed),
    };
    let other = |error: notify::Error| WatchError::Other { path: first(), what: error.to_string() };
    let watcher = RecommendedWatcher::new(hear, Config::default().with_follow_symlinks(false)).map_err(other)?;
    let tree = Tree::new(triggers, watcher)?;
    let watching = Watching { tree, changes, missed, delay: triggers.delay, reports };
    std::thread::Builder::new().name("watch".into()).spawn(|| watching.run()).map_err(WatchError::Thread)?;
    Ok(())
}

struct Watching {
    tree: Tree,
    changes: Receiver<notify::Event>,
    missed: Arc<AtomicBool>,
    delay: Duration,
    reports: Reports<Event>,
}

/// Changes since the last reload.
#[derive(Default)]
struct Seen {
    path: PathBuf,
    changes: u64,
}

impl Watching {
    fn run(mut self) {
        loop {
            let mut seen = Seen::default();
            while seen.changes == 0 {
                let heard = match self.tree.is_whole() {
                    true => self.changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    false => self.changes.recv_timeout(LOOK_EVERY),
                };
                match heard {
                    Ok(event) => self.hear(event, &mut seen),
                    Err(RecvTimeoutError::Timeout) => self.look_again(&mut seen),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.wait_for_quiet(&mut seen);
            let Seen { path, changes } = seen;
            if self.reports.send_blocking(Event::Changed { path, changes }).is_err() {
                return;
            }
        }
    }

    fn wait_for_quiet(&mut self, seen: &mut Seen) {
        let latest = Instant::now() + self.delay * DELAYS_MAX;
        let mut quiet_at = Instant::now() + self.delay;
        loop {
            let left = quiet_at.min(latest).saturating_duration_since(Instant::now());
            let Ok(event) = self.changes.recv_timeout(left) else { return };
            let before = seen.changes;
            self.hear(event, seen);
            if seen.changes > before {
                quiet_at = Instant::now() + self.delay;
            }
        }
    }

    fn hear(&mut self, event: notify::Event, seen: &mut Seen) {
        if event.need_rescan() || self.missed.swap(false, Relaxed) {
            seen.changes += 1;
            self.look_again(seen);
        }
        let appears = matches!(
            event.kind,
            EventKind::Create(CreateKind::Folder | CreateKind::Any)
                | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both | RenameMode::Any))
        );
        let goes = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Both))
        );
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in event.paths {
            if !self.tree.counts(&path) {
                continue;
            }
            if goes && !path.exists() {
                self.tree.gone(&path);
            }
            if appears && let Err(error) = self.tree.appeared(&path) {
                warn!(%error, "not everything is watched");
            }
            seen.changes += 1;
            seen.path = path;
        }
    }

    fn look_again(&mut self, seen: &mut Seen) {
        match self.tree.again() {
            Ok(more) => seen.changes += u64::from(more),
            Err(error) => warn!(%error, "not everything is watched"),
        }
    }
}
