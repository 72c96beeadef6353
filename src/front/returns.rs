//! Which connections came back, from which worker, and how often, so that a worker can return only what it has.

use crate::clock;
use crate::core::ids::WorkerId;
use crate::core::moment::Moment;
use crate::sys::socket::listen;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use tokio::time::sleep;

/// Times that one connection may come back before no worker gets it any more. With the pauses in [`super::returned`]
/// that takes some seconds when all refuse it.
pub const RETURNS_MAX: u32 = 100;
/// Connections that are remembered, the last ones. An older one counts as new.
const REMEMBERED_MAX: usize = 1024;
/// Connections that one hand-off socket may return in [`WINDOW`]: 1000 in a second. The rest waits in it.
const PER_WINDOW: u32 = 100;
const WINDOW: Duration = Duration::from_millis(100);

/// A connection that came back.
#[derive(Debug)]
struct Entry {
    cookie: u64,
    times: u32,
    /// The worker that got it then; none as long as the master has it.
    holder: Option<WorkerId>,
}

/// What the return of a connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Another worker gets it.
    Welcome,
    /// It came back too often.
    TooOften,
    /// The worker has returned it before, and another worker has it: this is a copy, and no connection ends with it.
    Copy,
}

/// The returned connections of all workers.
#[derive(Debug, Default)]
pub struct Returns {
    /// The oldest first.
    remembered: RefCell<VecDeque<Entry>>,
}

impl Returns {
    /// A worker returns a connection.
    pub fn came(&self, connection: BorrowedFd<'_>, from: WorkerId) -> Came {
        let Some(cookie) = listen::cookie(connection) else { return Came::Welcome };
        self.came_by(cookie, from)
    }

    fn came_by(&self, cookie: u64, from: WorkerId) -> Came {
        let mut remembered = self.remembered.borrow_mut();
        match remembered.iter_mut().find(|entry| entry.cookie == cookie) {
            Some(entry) if entry.holder != Some(from) => Came::Copy,
            Some(entry) => {
                entry.holder = None;
                entry.times += 1;
                if entry.times > RETURNS_MAX { Came::TooOften } else { Came::Welcome }
            }
            None => {
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.pop_front();
                }
                remembered.push_back(Entry { cookie, times: 1, holder: None });
                Came::Welcome
            }
        }
    }

    /// A connection that came back was given to another worker.
    pub fn went(&self, connection: BorrowedFd<'_>, to: Option<WorkerId>) {
        let Some(cookie) = listen::cookie(connection) else { return };
        self.remembered.borrow_mut().iter_mut().filter(|e| e.cookie == cookie).for_each(|e| e.holder = to);
    }

    /// A connection was taken back untaken: the worker that gets it now may return it as if it were new.
    pub fn forget(&self, connection: BorrowedFd<'_>) {
        if self.remembered.borrow().is_empty() {
            return;
        }
        if let Some(cookie) = listen::cookie(connection) {
            self.remembered.borrow_mut().retain(|entry| entry.cookie != cookie);
        }
    }
}

/// How much one hand-off socket may still bring back.
#[derive(Debug, Default)]
pub struct Pace {
    left: u32,
    until: Moment,
    waits: u64,
}

impl Pace {
    /// Waits until one more may come. If it had to wait now, returns how often that has happened.
    pub async fn one_more(&mut self) -> Option<u64> {
        let now = clock::now();
        let waits = self.left == 0 && now < self.until;
        if waits {
            self.waits += 1;
            sleep(self.until.since(now)).await;
        }
        if waits || now >= self.until {
            *self = Pace { left: PER_WINDOW, until: clock::now() + WINDOW, waits: self.waits };
        }
        self.left = self.left.saturating_sub(1);
        waits.then_some(self.waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_returns_only_what_it_has_and_not_for_ever() {
        let returns = Returns::default();
        let (a, b) = (WorkerId(1), WorkerId(2));
        let hold = |to| returns.remembered.borrow_mut()[0].holder = Some(to);
        assert_eq!(returns.came_by(7, a), Came::Welcome);
        assert_eq!(returns.came_by(7, a), Came::Copy, "it is in the master's hands");
        hold(b);
        assert_eq!(returns.came_by(7, a), Came::Copy, "b has it");
        for _ in 1..RETURNS_MAX {
            assert_eq!(returns.came_by(7, b), Came::Welcome);
            hold(b);
        }
        assert_eq!(returns.came_by(7, b), Came::TooOften);
    }

    #[test]
    fn only_the_last_ones_are_remembered() {
        let returns = Returns::default();
        for cookie in 0..REMEMBERED_MAX as u64 + 5 {
            returns.came_by(cookie, WorkerId(1));
        }
        assert_eq!(returns.remembered.borrow().len(), REMEMBERED_MAX);
        assert_eq!(returns.came_by(0, WorkerId(1)), Came::Welcome);
    }
}
