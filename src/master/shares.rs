//! Kernel mode: what each slot should get. That is its weight, less while its worker is fresh, and with
//! least-connections nothing for the more loaded ones. The kernel counts whom it gives a connection and not who
//! closed one, so the master looks how many are open, time and again.

use super::event::Event;
use super::run::Master;
use crate::clock;
use crate::config::Mode;
use crate::config::choice::Policy;
use crate::core::fleet::Occupant;
use crate::core::ids::{Slot, WorkerId};
use crate::core::moment::Moment;
use crate::core::policy::{View, less_loaded_half};
use crate::core::slow_start::{SHARE_MAX, share};
use crate::front::bustle::{BEAT, next_beat};
use crate::steer::order::Share;
use crate::sys::process;
use crate::workers::worker::Worker;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::sleep;

/// How often the shares of fresh workers are reckoned anew, at most.
const GROW_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked what the workers have open, at most: loads that matter here last longer.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Both rest so many times as long as they took: they may cost a twentieth of a core.
const REST: u32 = 20;

/// What is known of the workers' loads.
#[derive(Debug, Default)]
pub struct Shares {
    loads: HashMap<WorkerId, Load>,
    /// Whether a time is set at which shares have grown.
    grows: bool,
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

impl Master {
    /// What these slots should get, whoever sits there.
    pub(super) fn plain_shares(&self, slots: &[Slot]) -> Vec<Share> {
        slots.iter().map(|slot| self.share(*slot, SHARE_MAX)).collect()
    }

    /// What these slots should get, whose workers serve.
    pub(super) fn shares(&self, slots: &[Slot], now: Moment) -> Vec<Share> {
        let shares = slots.iter().map(|slot| self.share(*slot, self.grown(*slot, now))).collect();
        match self.config.policy {
            Policy::LeastConnections => self.less_loaded(shares),
            Policy::RoundRobin | Policy::RandomTwo | Policy::SourceHash(_) => shares,
        }
    }

    fn share(&self, slot: Slot, grown: u32) -> Share {
        Share { slot: slot.0, weight: self.config.weights.of(slot) * grown }
    }

    /// How much of a share the slot's worker has grown into, in [`SHARE_MAX`]ths.
    fn grown(&self, slot: Slot, now: Moment) -> u32 {
        // A client must meet its slot again after a re-fork.
        let sticky = matches!(self.config.policy, Policy::SourceHash(_));
        let growth = self.config.admission.slow_start.filter(|_| !sticky);
        let (Some(growth), Some(worker)) = (growth, self.serving(slot)) else { return SHARE_MAX };
        share(now.since(worker.health.serves_since), growth)
    }

    fn less_loaded(&self, shares: Vec<Share>) -> Vec<Share> {
        let loads = shares.iter().map(|share| self.load_at(Slot(share.slot))).collect();
        let loaded = Loaded { shares, loads };
        less_loaded_half(&loaded).into_iter().filter_map(|index| loaded.shares.get(index).copied()).collect()
    }

    /// What the slot's worker had open when it was last looked at, and what it was given since then. What was
    /// closed since then counts until the next look.
    fn load_at(&self, slot: Slot) -> u32 {
        let Some(worker) = self.serving(slot) else { return 0 };
        let steered = self.front.steered_to(slot).unwrap_or(0);
        let load = match self.shares.loads.get(&worker.id) {
            Some(load) => load.open + steered.saturating_sub(load.steered),
            // Before the first look nobody knows.
            None if self.shares.loads.is_empty() => 0,
            None => steered.saturating_sub(worker.health.base),
        };
        u32::try_from(load).unwrap_or(u32::MAX)
    }

    /// The worker that serves in a slot.
    fn serving(&self, slot: Slot) -> Option<&Worker> {
        let seat = self.fleet.seats().get(slot.index())?;
        self.workers.get(seat.serving().map(|occupant: &Occupant| occupant.worker)?)
    }

    /// Lets shares be reckoned anew in a while, if somebody's grows. `cost` is what it took this time.
    pub(super) fn go_on_growing(&mut self, now: Moment, cost: Duration) {
        let slots = || (0..self.fleet.seats().len() as u32).map(Slot);
        let somebody = self.config.admission.slow_start.is_some()
            && slots().any(|slot| self.serving(slot).is_some() && self.grown(slot, now) < SHARE_MAX);
        if somebody && !std::mem::replace(&mut self.shares.grows, true) {
            self.later(sleep(GROW_EVERY.max(cost.saturating_mul(REST))), || Event::Grown);
        }
    }

    /// Shares have grown; steering follows every event.
    pub(super) fn grown_by_now(&mut self) {
        self.shares.grows = false;
    }

    /// Begins to look what the workers have open, where that matters.
    pub(super) fn begin_to_look_at_loads(&self) {
        if self.config.mode == Mode::Kernel && self.config.policy == Policy::LeastConnections {
            self.later(sleep(LOOK_EVERY), || Event::LookAtLoads);
        }
    }

    /// Looks aside what the workers have open.
    pub(super) fn look_at_loads(&self) {
        let idle = |worker: &Worker| {
            // Where the kernel does not count, nobody can tell.
            let Some(steered) = self.front.steered_to(worker.slot) else { return false };
            self.shares.loads.get(&worker.id).is_some_and(|load| load.open == 0 && load.steered == steered)
        };
        if self.workers.values().all(idle) {
            // Nobody came to where nobody was: to read what the kernel counted tells as much as `/proc`.
            return self.later(next_beat(LOOK_EVERY), || Event::LookAtLoads);
        }
        let events = self.events.clone();
        let (groups, ports) = (self.workers.groups(), self.front.ports());
        let steered = |worker: &Worker| (worker.id, self.front.steered_to(worker.slot).unwrap_or(0));
        let steered = self.workers.values().map(steered).collect();
        let aside = self.front.house.aside.clone();
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

    /// It is known what the workers had open a moment ago.
    pub(super) fn loads_seen(&mut self, look: &Look) {
        let load = |worker: &Worker| {
            let open = *look.open.get(&worker.pid)?;
            let steered = self.front.steered_to(worker.slot).unwrap_or(0);
            // What came while we looked is among those open, or among those that wait, or both.
            let waiting: u64 = self.front.groups().map(|group| group.queued_at(worker.slot)).sum();
            let came = steered.saturating_sub(*look.steered.get(&worker.id)?);
            Some((worker.id, Load { open: open + came.max(waiting), steered }))
        };
        let loads: HashMap<WorkerId, Load> = self.workers.values().filter_map(load).collect();
        let before = std::mem::replace(&mut self.shares.loads, loads);
        let same = |(id, load): (&WorkerId, &Load)| before.get(id).is_some_and(|before| before.steered == load.steered);
        let pause = LOOK_EVERY.max(look.cost.saturating_mul(REST));
        if !self.shares.loads.iter().all(same) {
            return self.later(sleep(pause), || Event::LookAtLoads);
        }
        // Where nobody comes, it matters little who leaves.
        let counts = self.workers.values().all(|worker| self.front.steered_to(worker.slot).is_some());
        let nobody = || self.shares.loads.values().chain(before.values()).all(|load| load.open == 0);
        // Where the kernel does not count each look wakes another thread, so it comes at every other beat then.
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
