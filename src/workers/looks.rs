//! What was seen of the sockets that a worker's processes have open, for requests that depend on that.

use crate::wire::packet::RequestId;
use std::collections::HashSet;
use std::time::Instant;

/// Looks at one worker, one at a time: what the worker asks for meanwhile is decided as if everything were open.
#[derive(Debug, Default)]
pub struct Looks {
    /// Whether one is under way.
    pub under_way: bool,
    /// What was seen, while the request that waited for it is decided.
    pub seen: Option<Seen>,
    /// When the next may begin.
    pub not_before: Option<Instant>,
}

impl Looks {
    /// Whether one can be asked for now.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.seen.is_none() && !self.under_way
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Inodes of the sockets that the worker's processes have open; `None` if looking was not possible.
    pub open: Option<HashSet<u64>>,
    /// Those that a supervised worker had when the look began. Newer ones could not be seen.
    pub had: HashSet<u64>,
    /// The requests that the worker had then.
    pub requests: HashSet<RequestId>,
}

impl Seen {
    /// Whether the socket of a request, with this inode, may still be open.
    #[must_use]
    pub fn may_be_open(&self, request: RequestId, inode: Option<u64>) -> bool {
        !self.requests.contains(&request) || is_among(inode, self.open.as_ref())
    }
}

/// Whether a socket is among those that are open. If looking was not possible, it may be.
#[must_use]
pub fn is_among(inode: Option<u64>, open: Option<&HashSet<u64>>) -> bool {
    inode.is_some_and(|inode| open.is_none_or(|open| open.contains(&inode)))
}
