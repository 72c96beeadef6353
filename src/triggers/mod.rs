//! What asks for a reload by itself: files that change (`--watch`), and times (`--restart-cron`).

mod files;
mod times;
mod tree;

use crate::config::triggers::Triggers;
use crate::reports::Reports;
use std::path::PathBuf;

/// A reload is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Files have changed.
    Changed {
        /// One of them.
        path: PathBuf,
        /// How many changes were seen.
        changes: u64,
    },
    /// Its time has come.
    Due,
}

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It is not there.
    #[error("cannot watch {}: {source}; check --watch", path.display())]
    NotThere {
        /// What was to be watched.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel allows no more watches.
    #[error(
        "cannot watch {}: it has more directories than this user may watch (sysctl fs.inotify.max_user_watches); watch \
         less, or leave some out with --watch-ignore",
        .0.display()
    )]
    TooMany(PathBuf),
    /// Something else.
    #[error("cannot watch {}: {what}", path.display())]
    Other {
        /// What was to be watched.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// There is no thread for it.
    #[error("cannot watch files: {0}")]
    Thread(std::io::Error),
}

/// Asks for reloads from now on, until the reports have no receiver.
///
/// # Errors
/// [`WatchError`].
pub fn begin(triggers: &Triggers, reports: &Reports<Event>) -> Result<(), WatchError> {
    if !triggers.times.is_empty() {
        tokio::task::spawn_local(times::keep(triggers.times.clone(), reports.clone()));
    }
    if triggers.watch.is_empty() { Ok(()) } else { files::watch(triggers, reports.clone()) }
}
