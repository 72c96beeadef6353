//! The workers that run, and what each is started with.

use super::start::Starter;
use super::worker::Worker;
use crate::core::ids::WorkerId;
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};

/// The workers that run. A worker is in here from its fork until its process is reaped.
#[derive(Debug)]
pub struct Pool {
    /// Starts workers.
    pub starter: Starter,
    /// The highest number that a worker ever got.
    newest: WorkerId,
    all: HashMap<WorkerId, Worker>,
}

impl Pool {
    /// A pool in which no worker runs yet.
    #[must_use]
    pub fn new(starter: Starter) -> Pool {
        Pool::of(starter, HashMap::new(), WorkerId(0))
    }

    /// A pool of workers that run already; `newest` is the highest number that a worker ever got.
    #[must_use]
    pub fn of(starter: Starter, all: HashMap<WorkerId, Worker>, newest: WorkerId) -> Pool {
        Pool { starter, newest, all }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.all.get(&id)
    }

    /// One of them.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.all.get_mut(&id)
    }

    /// One of them, and what it was started with.
    pub fn get_with_starter(&mut self, id: WorkerId) -> Option<(&mut Worker, &Starter)> {
        Some((self.all.get_mut(&id)?, &self.starter))
    }

    /// All, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Worker> {
        self.all.values()
    }

    /// All, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.all.values_mut()
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = WorkerId> {
        self.all.keys().copied()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether no worker runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a worker.
    pub fn insert(&mut self, worker: Worker) {
        self.newest = self.newest.max(worker.id);
        self.all.insert(worker.id, worker);
    }

    /// Removes a worker, and the shims of older versions that no worker has any more.
    pub fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.all.remove(&id);
        let all = &self.all;
        self.starter.old_shims.retain(|shim| all.keys().any(|worker| *worker <= shim.newest));
        worker
    }

    /// The highest number that a worker ever got.
    #[must_use]
    pub fn newest(&self) -> WorkerId {
        self.newest
    }

    /// Their process groups.
    #[must_use]
    pub fn groups(&self) -> Vec<Pid> {
        self.values().map(|worker| worker.pid).collect()
    }

    /// The process groups of all workers but one, which may have the same sockets.
    #[must_use]
    pub fn groups_beside(&self, id: WorkerId) -> HashSet<Pid> {
        self.values().filter(|other| other.id != id).map(|other| other.pid).collect()
    }
}
