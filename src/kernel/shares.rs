//! What each slot should get in kernel mode. That is its weight, less while its worker is fresh, and with
//! least-connections nothing for the more loaded slots. The kernel counts the connections that it gives to a slot, but
//! not those that close, so the master looks again and again how many are open.

use super::order::Share;
use crate::activity::{BEAT, next_beat};
use crate::aside::Aside;
use crate::clock;
use crate::config::choice::Policy;
use crate::config::{Config, Mode};
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::core::policy::{View, less_loaded_half};
use crate::core::slow_start::{SHARE_MAX, share};
use crate::reports::Reports;
use crate::sys::process;
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::sleep;

/// How often, at most, the shares of fresh workers are recalculated.
const GROW_EVERY: Duration = Duration::from_millis(50);
/// How often, at most, the master looks at what the workers have open: loads that matter here last longer.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Both rest this many times as long as they took: they may cost a twentieth of a core.
const REST: u32 = 20;

/// It is time for something that changes the shares.
#[derive(Debug)]
pub enum Event {
    /// To look at what the workers have open.
    LookAtLoads,
    /// The result of that look.
    Loads(Look),
    /// The shares of fresh workers have grown.
    Grown,
}

/// What the kernel counted for each slot, over all addresses. To ask costs a system call.
pub trait Counted {
    /// Connections that it gave to a slot; `None` where it does not count.
    fn steered_to(&self, slot: Slot) -> Option<u64>;
    /// Connections that wait at a slot's sockets.
    fn waiting_at(&self, slot: Slot) -> u64;
}

/// A worker, and its slot.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// The worker.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// Its process group.
    pub group: Pid,
    /// Since when it serves.
    pub since: Moment,
    /// What the kernel had given the slot before that.
    pub base: u64,
}

/// What is known of the workers' loads.
#[derive(Debug)]
pub struct Shares {
    loads: HashMap<WorkerId, Load>,
    /// Whether a time is set for [`Event::Grown`].
    grows: bool,
    events: Reports<Event>,
}

/// A worker's load when it was last looked at, and what the kernel had given its slot until then.
#[derive(Debug)]
struct Load {
    open: u64,
    steered: u64,
}

/// What a look found.
#[derive(Debug)]
pub struct Look {
    open: HashMap<Pid, u64>,
    /// What the kernel had given to each worker's slot when the look began.
    steered: HashMap<WorkerId, u64>,
    cost: Duration,
}

/// Shares with loads, as a policy sees them by their place in the list.
struct Loaded {
    shares: Vec<Share>,
    loads: Vec<u32>,
}

impl View for Loaded {
    fn slots(&self) -> usize {
        self.shares.len()
    }

    fn may(&self, _: usize) -> bool {
        true
    }

    fn load(&self, index: usize) -> u32 {
        self.loads.get(index).copied().unwrap_or(0)
    }

    fn weight(&self, index: usize) -> u32 {
        self.shares.get(index).map_or(0, |share| share.weight)
    }

    fn weights_are_equal(&self) -> bool {
        false
    }
}

/// What these slots should get, whichever workers they have.
pub fn plain(config: &Config, slots: impl IntoIterator<Item = Slot>) -> Vec<Share> {
    slots.into_iter().map(|slot| share_of(config, slot, SHARE_MAX)).collect()
}

fn share_of(config: &Config, slot: Slot, grown: u32) -> Share {
    Share { slot: slot.0, weight: config.weights.of(slot) * grown }
}

/// How much of a share a worker has grown into, in [`SHARE_MAX`]ths.
fn grown(config: &Config, served: &Served, now: Moment) -> u32 {
    // A client must reach the same slot again after a re-fork.
    let sticky = matches!(config.policy, Policy::SourceHash(_));
    let growth = config.admission.slow_start.filter(|_| !sticky);
    growth.map_or(SHARE_MAX, |growth| share(now.since(served.since), growth))
}

impl Shares {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(events: Reports<Event>) -> Shares {
        Shares { loads: HashMap::new(), grows: false, events }
    }

    /// What the slots of these workers should get.
    #[must_use]
    pub fn of(&self, config: &Config, serving: &[Served], counted: &impl Counted, now: Moment) -> Vec<Share> {
        let shares = serving.iter().map(|served| share_of(config, served.slot, grown(config, served, now))).collect();
        match config.policy {
            Policy::LeastConnections => {
                let loads = serving.iter().map(|served| self.load_of(served, counted)).collect();
                let loaded = Loaded { shares, loads };
                less_loaded_half(&loaded).into_iter().filter_map(|index| loaded.shares.get(index).copied()).collect()
            }
            Policy::RoundRobin | Policy::RandomTwo | Policy::SourceHash(_) => shares,
        }
    }

    /// What a worker had open at the last look, and what it was given since then. What was closed since then counts
    /// until the next look.
    fn load_of(&self, served: &Served, counted: &impl Counted) -> u32 {
        let steered = counted.steered_to(served.slot).unwrap_or(0);
        let load = match self.loads.get(&served.worker) {
            Some(load) => load.open + steered.saturating_sub(load.steered),
            // Before the first look nothing is known.
            None if self.loads.is_empty() => 0,
            None => steered.saturating_sub(served.base),
        };
        u32::try_from(load).unwrap_or(u32::MAX)
    }

    /// Schedules the next calculation of shares ([`Event::Grown`]), if any share grows. `cost` is the time that it took
    /// now.
    pub fn go_on_growing(&mut self, config: &Config, serving: &[Served], now: Moment, cost: Duration) {
        let somebody = serving.iter().any(|served| grown(config, served, now) < SHARE_MAX);
        if somebody && !std::mem::replace(&mut self.grows, true) {
            self.later(sleep(GROW_EVERY.max(cost.saturating_mul(REST))), || Event::Grown);
        }
    }

    /// Shares have grown; steering follows every event.
    pub fn grown_by_now(&mut self) {
        self.grows = false;
    }

    /// Begins to look at what the workers have open, where that matters.
    pub fn begin(&self, config: &Config) {
        if config.mode == Mode::Kernel && config.policy == Policy::LeastConnections {
            self.later(sleep(LOOK_EVERY), || Event::LookAtLoads);
        }
    }

    /// Looks aside at what all workers have open at these ports.
    pub fn look(&self, workers: &[Served], counted: &impl Counted, ports: HashSet<u16>, aside: &Aside) {
        let idle = |served: &Served| {
            // Where the kernel does not count, this cannot be known.
            let Some(steered) = counted.steered_to(served.slot) else { return false };
            self.loads.get(&served.worker).is_some_and(|load| load.open == 0 && load.steered == steered)
        };
        if workers.iter().all(idle) {
            // No connection came to workers that had none: what the kernel counted tells as much as `/proc`.
            return self.later(next_beat(LOOK_EVERY), || Event::LookAtLoads);
        }
        let groups: Vec<Pid> = workers.iter().map(|served| served.group).collect();
        let steered =
            workers.iter().map(|served| (served.worker, counted.steered_to(served.slot).unwrap_or(0))).collect();
        let (aside, events) = (aside.clone(), self.events.clone());
        tokio::task::spawn_local(async move {
            let look = aside.run(move || {
                let begun = clock::now();
                let open = process::open_connections(&groups, &ports);
                Look { open, steered, cost: clock::now().since(begun) }
            });
            let event = match look.await {
                Ok(look) => Event::Loads(look),
                Err(_) => {
                    sleep(LOOK_EVERY).await;
                    Event::LookAtLoads
                }
            };
            let _ = events.send(event).await;
        });
    }

    /// Takes over the result of a look at what the workers had open a moment ago.
    pub fn seen(&mut self, look: &Look, workers: &[Served], counted: &impl Counted) {
        let load = |served: &Served| {
            let open = *look.open.get(&served.group)?;
            let steered = counted.steered_to(served.slot).unwrap_or(0);
            // What came during the look is among those open, or among those that wait, or both.
            let came = steered.saturating_sub(*look.steered.get(&served.worker)?);
            Some((served.worker, Load { open: open + came.max(counted.waiting_at(served.slot)), steered }))
        };
        let loads: HashMap<WorkerId, Load> = workers.iter().filter_map(load).collect();
        let before = std::mem::replace(&mut self.loads, loads);
        let same = |(id, load): (&WorkerId, &Load)| before.get(id).is_some_and(|before| before.steered == load.steered);
        let pause = LOOK_EVERY.max(look.cost.saturating_mul(REST));
        if !self.loads.iter().all(same) {
            return self.later(sleep(pause), || Event::LookAtLoads);
        }
        // Where no connections come, it matters little which ones close.
        let counts = workers.iter().all(|served| counted.steered_to(served.slot).is_some());
        let nobody = || self.loads.values().chain(before.values()).all(|load| load.open == 0);
        // Where the kernel does not count, each look wakes another thread, so it comes at every other beat then.
        let pause = if counts || !nobody() { pause } else { pause.max(BEAT) };
        self.later(next_beat(pause), || Event::LookAtLoads);
    }

    fn later(&self, pause: impl Future<Output = ()> + 'static, event: fn() -> Event) {
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            pause.await;
            let _ = events.send(event()).await;
        });
    }
}
