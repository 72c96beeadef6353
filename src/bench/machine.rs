//! How busy the whole machine is during a run: results measured next to other programs are doubtful.

use super::load::ClientCost;
use super::observe::Costs;
use procfs::CurrentSI;

/// The machine's processor time, from `/proc/stat`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    busy_s: f64,
    idle_s: f64,
    stolen_s: f64,
}

impl Machine {
    /// The time so far.
    #[must_use]
    pub fn now() -> Machine {
        let Ok(stat) = procfs::KernelStats::current() else { return Machine::default() };
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let t = &stat.total;
        let interrupts = t.irq.unwrap_or(0) + t.softirq.unwrap_or(0);
        Machine {
            busy_s: seconds(t.user + t.nice + t.system + interrupts),
            idle_s: seconds(t.idle + t.iowait.unwrap_or(0)),
            stolen_s: seconds(t.steal.unwrap_or(0)),
        }
    }

    /// From `self` to `later`.
    #[must_use]
    pub fn until(&self, later: &Machine) -> Machine {
        Machine {
            busy_s: later.busy_s - self.busy_s,
            idle_s: later.idle_s - self.idle_s,
            stolen_s: later.stolen_s - self.stolen_s,
        }
    }

    /// What the host took, and what neither the subject nor the clients used, as parts of the whole.
    #[must_use]
    pub fn shares(&self, costs: &Costs, client: &ClientCost) -> (f64, f64) {
        let whole = self.busy_s + self.idle_s + self.stolen_s;
        if whole <= 0.0 {
            return (0.0, 0.0);
        }
        let known = costs.front.cpu_s + costs.workers.cpu_s + client.cpu_s;
        (self.stolen_s / whole, (self.busy_s - known).max(0.0) / whole)
    }
}
