//! The load generator: many connections on few threads, one epoll loop each.
//!
//! [`schedule`] says when the next connection is due, [`connect`] opens it, `engine` drives it, [`answer`] parses what
//! comes back, [`board`] shows which slot has how many open, and [`tally`] counts how it ended. A closed loop opens
//! the next connection when one has ended; an open loop opens it when it is due, and counts latency from that instant,
//! so that the time spent waiting for a slow server is not left out ("coordinated omission", G. Tene,
//! <https://github.com/giltene/wrk2>).

pub mod answer;
pub mod board;
pub mod connect;
mod engine;
pub mod schedule;
pub mod tally;

use crate::bench::stop::Stop;
use crate::sys::process;
use crate::sys::process::allocations;
use board::Board;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tally::Tally;

/// When connections arrive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// This many clients; each connects again when its connection has ended.
    Closed {
        /// The number of clients.
        clients: usize,
    },
    /// At this rate, whatever the server does.
    Open {
        /// Connections per second.
        per_second: f64,
    },
    /// This many at once; when all are answered, a pause.
    Bursts {
        /// Connections in a burst.
        size: usize,
        /// Time from the end of one burst to the beginning of the next.
        pause: Duration,
    },
}

/// The amount of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Volume {
    /// This many connections.
    Connections(u64),
    /// As many as begin within this time.
    Duration(Duration),
}

/// The protocol on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1, one request per connection.
    Http,
    /// HTTP/1.1, several requests on one connection.
    KeepAlive,
    /// Bytes that the server sends back.
    Echo,
}

/// The meaning of connections that are explicitly turned away: reset, or answered with 503.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnedAway {
    /// An error; when most are turned away, the rest is not tried.
    #[default]
    Wrong,
    /// The server was configured to do that when it has too many.
    AsTold,
}

/// What the clients do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// When connections arrive.
    pub arrival: Arrival,
    /// The amount of work.
    pub volume: Volume,
    /// The protocol.
    pub protocol: Protocol,
    /// Requests on each connection.
    pub exchanges: u32,
    /// The paths to request; each request picks one at random.
    pub paths: Vec<String>,
    /// Mean of the pause between two exchanges on a connection, which is exponentially distributed.
    pub pause: Option<Duration>,
    /// How long an answer may take before the connection counts as hung.
    pub timeout: Duration,
    /// Threads to use.
    pub threads: usize,
    /// The most connections that may be open at a time, in an open loop and in bursts.
    pub open_max: usize,
    /// Seed of all random choices.
    pub seed: u64,
    /// The number of loopback addresses that connections come from, each picked at random, if it is set.
    #[serde(default)]
    pub sources: Option<u32>,
    /// What it means when they are turned away.
    #[serde(default)]
    pub turned_away: TurnedAway,
}

impl Load {
    /// The most connections that this load has open at a time.
    #[must_use]
    pub fn open_at_once(&self) -> usize {
        match self.arrival {
            Arrival::Closed { clients } => clients,
            Arrival::Open { .. } => self.open_max,
            Arrival::Bursts { size, .. } => size.min(self.open_max),
        }
    }

    /// The part of the load for engine `index` of `count`.
    fn share(&self, index: usize, count: usize) -> Load {
        let part = |all: usize| all / count + usize::from(index < all % count);
        let mut share = self.clone();
        share.arrival = match self.arrival {
            Arrival::Closed { clients } => Arrival::Closed { clients: part(clients) },
            Arrival::Open { per_second } => Arrival::Open { per_second: per_second / count as f64 },
            Arrival::Bursts { size, pause } => Arrival::Bursts { size: part(size), pause },
        };
        share.volume = match self.volume {
            Volume::Connections(all) => Volume::Connections(part(all as usize) as u64),
            Volume::Duration(duration) => Volume::Duration(duration),
        };
        share.open_max = part(self.open_max).max(1);
        share.seed = self.seed.wrapping_add(index as u64);
        share
    }
}

/// What the clients cost, summed over their threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientCost {
    /// Processor time.
    pub cpu_s: f64,
    /// Time in which a thread could have run but had no processor.
    pub waiting_s: f64,
    /// Context switches.
    pub switches: u64,
    /// Heap allocations; counted only in the program, where [`allocations::Counting`] is installed.
    pub allocations: u64,
    /// Threads.
    pub threads: u64,
}

/// The result of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Endings and latencies.
    pub tally: Tally,
    /// From the beginning of the first connection to the end of the last one, without planned pauses.
    pub took: Duration,
    /// What the clients cost.
    pub cost: ClientCost,
}

/// Puts the load on `address` and waits until it is complete, or until `stop`. `ended` grows with the connections, for
/// a progress bar; `board` shows which slot has how many open.
///
/// # Errors
/// When a thread or an epoll set cannot be created.
pub fn drive(load: &Load, address: SocketAddr, stop: &Stop, ended: &AtomicU64, board: &Board) -> io::Result<Outcome> {
    let most = match load.arrival {
        Arrival::Closed { clients } => clients,
        Arrival::Bursts { size, .. } => size,
        Arrival::Open { .. } => load.threads,
    };
    let count = load.threads.min(most).max(1);
    let shares: Vec<Load> = (0..count).map(|index| load.share(index, count)).collect();
    let results: Vec<io::Result<Outcome>> = std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .iter()
            .map(|share| {
                let thread = std::thread::Builder::new().name("bench-client".to_owned());
                thread.spawn_scoped(scope, move || measured(share, address, stop, ended, board))
            })
            .collect();
        let joined = running.into_iter().map(|thread| match thread?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    let mut whole: Option<Outcome> = None;
    for part in results {
        let part = part?;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => {
                whole.tally.add(&part.tally);
                whole.took = whole.took.max(part.took);
                whole.cost.cpu_s += part.cost.cpu_s;
                whole.cost.waiting_s += part.cost.waiting_s;
                whole.cost.switches += part.cost.switches;
                whole.cost.allocations += part.cost.allocations;
                whole.cost.threads += part.cost.threads;
            }
        }
    }
    whole.ok_or_else(|| io::Error::other("no client was started"))
}

/// Runs one engine on this thread and measures its cost.
fn measured(share: &Load, address: SocketAddr, stop: &Stop, ended: &AtomicU64, board: &Board) -> io::Result<Outcome> {
    let mut engine = engine::Engine::new(share, address, stop, board)?;
    let before = cost_so_far()?;
    let begun = Instant::now();
    let idle = engine.run(ended)?;
    let took = begun.elapsed().saturating_sub(idle);
    let after = cost_so_far()?;
    let cost = ClientCost {
        cpu_s: after.cpu_s - before.cpu_s,
        waiting_s: after.waiting_s - before.waiting_s,
        switches: after.switches - before.switches,
        allocations: after.allocations - before.allocations,
        threads: 1,
    };
    Ok(Outcome { tally: engine.into_tally(), took, cost })
}

/// What this thread has used so far.
fn cost_so_far() -> io::Result<ClientCost> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let cpu_us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(ClientCost {
        cpu_s: cpu_us as f64 / 1e6,
        waiting_s: process::waited_for_processor().as_secs_f64(),
        switches: (usage.voluntary_context_switches() + usage.involuntary_context_switches()) as u64,
        allocations: allocations::of_this_thread(),
        threads: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arrival: Arrival, volume: Volume) -> Load {
        Load {
            arrival,
            volume,
            protocol: Protocol::Http,
            exchanges: 1,
            paths: vec!["/".to_owned()],
            pause: None,
            timeout: Duration::from_secs(5),
            threads: 3,
            open_max: 100,
            seed: 1,
            sources: None,
            turned_away: TurnedAway::Wrong,
        }
    }

    #[test]
    fn shares_add_up() {
        let whole = load(Arrival::Closed { clients: 8 }, Volume::Connections(100));
        let shares: Vec<Load> = (0..3).map(|index| whole.share(index, 3)).collect();
        let clients = shares.iter().map(Load::open_at_once).sum::<usize>();
        let connections: u64 = shares
            .iter()
            .map(|s| match s.volume {
                Volume::Connections(n) => n,
                Volume::Duration(_) => 0,
            })
            .sum();
        assert_eq!((clients, connections), (8, 100));
    }
}
