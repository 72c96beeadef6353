//! Waits for the end of process groups whose first process has ended: behind a wrapper (`npm start`, `sh -c`), that is
//! when the server begins to stop. One look at `/proc` serves all groups that wait, so that the end of a hundred workers
//! does not cost a hundred looks.

use super::{Event, Events};
use crate::core::ids::{Slot, WorkerId};
use crate::front::common::Common;
use crate::sys::process::descent::{self, Kin};
use crate::sys::watch;
use crate::workers::leftovers;
use nix::unistd::Pid;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Looks in a row that must find no process of a group: a list of children may lack one while another ends (proc(5)).
const QUIET_LOOKS: u32 = 2;
/// The least pause between two looks.
const QUIET_PAUSE: Duration = Duration::from_millis(10);
/// Groups with a process whose end is waited for; it costs a descriptor. For the others there is a look now and then.
const HELD_MAX: usize = 64;
/// The time from one look to the next while there are such others.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The groups that are waited for.
#[derive(Debug, Default)]
pub struct Groups {
    waiting: RefCell<HashMap<Pid, Waiting>>,
    more: Notify,
    runs: Cell<bool>,
}

#[derive(Debug)]
struct Waiting {
    worker: WorkerId,
    slot: Slot,
    quiet: u32,
    announced: bool,
}

impl Groups {
    /// Reports [`Event::GroupEnded`] when no process of the group runs any more.
    pub fn wait(self: &Rc<Self>, group: Pid, worker: WorkerId, slot: Slot, common: &Rc<Common>, events: &Events) {
        self.waiting.borrow_mut().insert(group, Waiting { worker, slot, quiet: 0, announced: false });
        self.more.notify_one();
        if !self.runs.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).look(Rc::clone(common), events.clone()));
        }
    }

    async fn look(self: Rc<Self>, common: Rc<Common>, events: Events) {
        loop {
            let groups: HashSet<Pid> = self.waiting.borrow().keys().copied().collect();
            if groups.is_empty() {
                break;
            }
            let asked = groups.clone();
            let found = match common.aside.run(move || descent::members(Pid::this(), &asked)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    warn!(%error, "cannot see whether workers' other processes have ended; is /proc mounted?");
                    HashMap::new()
                }
                Err(error) => {
                    debug!(%error, "nobody looks any more");
                    break;
                }
            };
            for ended in self.judge(&groups, &found) {
                let _ = events.send(Event::GroupEnded { worker: ended }).await;
            }
            if self.waiting.borrow().values().all(|waiting| waiting.quiet == 0) {
                self.until_one_ends(&found).await;
            }
            sleep(QUIET_PAUSE).await;
        }
        self.runs.set(false);
    }

    /// Takes in what a look found. Returns the workers of whose groups no process runs any more.
    fn judge(&self, looked: &HashSet<Pid>, found: &HashMap<Pid, Vec<Kin>>) -> Vec<WorkerId> {
        let mut waiting = self.waiting.borrow_mut();
        for (group, waits) in waiting.iter_mut().filter(|(group, _)| looked.contains(group)) {
            let Some(members) = found.get(group) else {
                waits.quiet += 1;
                continue;
            };
            waits.quiet = 0;
            if !std::mem::replace(&mut waits.announced, true) {
                let (slot, processes) = (waits.slot.0, leftovers::names(members.iter()));
                info!(slot, processes, "a worker's first process has ended; waiting for the others of its group");
            }
        }
        waiting.extract_if(|_, waits| waits.quiet >= QUIET_LOOKS).map(|(_, waits)| waits.worker).collect()
    }

    /// Waits until a process of one of these groups ends, or one more group waits.
    async fn until_one_ends(&self, found: &HashMap<Pid, Vec<Kin>>) {
        let mut ends = JoinSet::new();
        let held = found.values().filter_map(|members| members.iter().find_map(Kin::hold)).take(HELD_MAX);
        for member in held.filter_map(|held| watch::readable(OwnedFd::from(held)).ok()) {
            ends.spawn_local(async move { drop(member.readable().await) });
        }
        let unheld = ends.len() < found.len();
        tokio::select! {
            Some(_) = ends.join_next() => {}
            () = self.more.notified() => {}
            () = sleep(LOOK_AGAIN), if unheld => {}
        }
    }
}
