//! Open connections that go on in the next program of this process.

use super::{Open, Opens, count_up};
use crate::core::ids::WorkerId;
use crate::core::source::Source;
use serde::{Deserialize, Serialize};

/// Open connections as they are passed on to the next program of this process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Passed {
    open: Vec<(u64, WorkerId, Option<Source>)>,
    recounts: u64,
}

impl Opens {
    /// Passes them on.
    pub fn pass(&self) -> Passed {
        let open = self.open.borrow();
        let open = open.iter().map(|(cookie, open)| (*cookie, open.worker, open.source)).collect();
        Passed { open, recounts: self.recounts.get() }
    }

    /// Takes over what was passed on. The next look finds what was closed in between.
    pub fn take(&self, passed: Passed) {
        if !self.counting {
            return;
        }
        self.recounts.set(passed.recounts);
        for (cookie, worker, source) in passed.open {
            let load = self.load_of(worker);
            count_up(&load);
            if let Some(source) = source {
                self.sources.borrow_mut().remember(source);
            }
            self.open.borrow_mut().insert(cookie, Open { worker, load, source, ends: None });
        }
        self.unaskable.set(self.total());
        self.missed.set(true);
        self.resync.notify_one();
    }
}
