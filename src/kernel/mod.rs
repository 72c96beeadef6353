//! Steering in the kernel: one listening socket per slot, all on one address (`SO_REUSEPORT`), and a
//! program that says which of them a connection belongs to. The choice is made when the connection is
//! asked for (its SYN), so a connection costs the master nothing.
//!
//! What is possible depends on privileges, and each step down is named:
//!
//! 1. [`exact`]: an eBPF program gives each eligible slot its turn, or each client its slot. Needs `CAP_BPF`
//!    and Linux 5.12.
//! 2. [`random`]: a classic program, which any user may attach, draws one of the eligible slots.
//! 3. The kernel's own hash over addresses and ports, which takes every slot as eligible.
//!
//! What each slot should get comes as its [`Share`]; [`order`] makes a list of them that the exact program uses. Least
//! connections are shares, too: the master leaves out the more loaded slots, again and again.

pub mod exact;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod group;
pub mod instructions;
pub mod order;
pub mod program;
pub mod random;
pub mod shares;

use crate::config::choice::Policy;
use crate::sys::exec::{Passing, Taking};
use crate::sys::socket::bpf;
use exact::Exact;
use order::Share;
use program::Choice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

/// What gives a connection its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Kind {
    /// Each eligible slot in turn.
    #[default]
    RoundRobin,
    /// Each of the less loaded slots in turn.
    LeastConnections,
    /// The slot of the client's address.
    SourceHash,
    /// A slot drawn among the eligible ones.
    Random,
    /// The kernel's hash over all slots.
    Hash,
}

impl Kind {
    /// The name that `status` shows under `policy`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::RoundRobin => "round-robin",
            Kind::LeastConnections => "least-connections",
            Kind::SourceHash => "source-hash",
            Kind::Random => "random",
            Kind::Hash => "hash",
        }
    }
}

/// What the exact program should do, and the kind that it then is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    kind: Kind,
    choice: Choice,
}

impl From<Policy> for Wanted {
    fn from(policy: Policy) -> Wanted {
        let (kind, choice) = match policy {
            // The kernel cannot be told which two are drawn; the configuration refuses it.
            Policy::RoundRobin | Policy::RandomTwo => (Kind::RoundRobin, Choice::InTurn),
            Policy::LeastConnections => (Kind::LeastConnections, Choice::InTurn),
            Policy::SourceHash(prefix) => (Kind::SourceHash, Choice::BySource(prefix)),
        };
        Wanted { kind, choice }
    }
}

impl Wanted {
    /// The kind that it then is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// Tries whether it is available, and leaves nothing behind.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn try_now(self) -> Result<(), String> {
        Exact::load(self.choice).map(drop).map_err(|refused| refused.advice())
    }
}

/// What steers the connections of one address.
#[derive(Debug)]
pub struct Steering {
    by: By,
    /// The kind of the exact program.
    wanted: Kind,
    /// Why another kind is used.
    reason: Option<String>,
    order: Vec<Share>,
}

#[derive(Debug)]
enum By {
    Exact { exact: Exact, attached: bool },
    Random(Members),
    Hash,
}

/// The slots of a group in the kernel's order, in which their sockets began to listen. When one leaves, the last takes
/// its place (`__reuseport_detach_sock` in net/core/sock_reuseport.c).
#[derive(Debug, Default, PartialEq, Eq)]
struct Members(Vec<u32>);

impl Members {
    fn enter(&mut self, slot: u32) {
        if !self.0.contains(&slot) {
            self.0.push(slot);
        }
    }

    fn leave(&mut self, slot: u32) {
        if let Some(index) = self.0.iter().position(|&member| member == slot) {
            self.0.swap_remove(index);
        }
    }

    /// The places of these slots, with their weights.
    fn places(&self, shares: &[Share]) -> Vec<(u32, u32)> {
        let places: BTreeMap<u32, u32> = self.0.iter().zip(0..).map(|(&slot, place)| (slot, place)).collect();
        shares.iter().filter_map(|share| Some((*places.get(&share.slot)?, share.weight))).collect()
    }
}

/// What the next program of this process needs to go on steering.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passed {
    by: PassedBy,
    #[serde(default)]
    wanted: Kind,
    reason: Option<String>,
    #[serde(default)]
    shares: Vec<Share>,
}

impl Passed {
    /// Whether this version understands the steering.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        !matches!(&self.by, PassedBy::Exact { exact, .. } if !exact.is_understood())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum PassedBy {
    Exact { exact: exact::Passed, attached: bool },
    Random(Vec<u32>),
    Hash,
}

impl Steering {
    /// Passes it on to the next program of this process.
    pub fn pass(&self, passing: &Passing) -> Passed {
        let by = match &self.by {
            By::Exact { exact, attached } => PassedBy::Exact { exact: exact.pass(passing), attached: *attached },
            By::Random(Members(members)) => PassedBy::Random(members.clone()),
            By::Hash => PassedBy::Hash,
        };
        Passed { by, wanted: self.wanted, reason: self.reason.clone(), shares: self.order.clone() }
    }

    /// Takes over what was passed on.
    ///
    /// # Errors
    /// The error of [`Exact::take`].
    pub fn take(passed: Passed, taking: &Taking) -> io::Result<Steering> {
        let by = match passed.by {
            PassedBy::Exact { exact, attached } => By::Exact { exact: Exact::take(&exact, taking)?, attached },
            PassedBy::Random(members) => By::Random(Members(members)),
            PassedBy::Hash => By::Hash,
        };
        Ok(Steering { by, wanted: passed.wanted, reason: passed.reason, order: passed.shares })
    }

    /// The best kind that this process may have.
    #[must_use]
    pub fn best(wanted: Wanted) -> Steering {
        match Exact::load(wanted.choice) {
            Ok(exact) => Steering::by(By::Exact { exact, attached: false }, wanted, None),
            Err(refused) => {
                let reason = match wanted.kind {
                    Kind::LeastConnections => format!("drawn among the less loaded half; {}", refused.advice()),
                    _ => refused.advice(),
                };
                Steering::by(By::Random(Members::default()), wanted, Some(reason))
            }
        }
    }

    fn by(by: By, wanted: Wanted, reason: Option<String>) -> Steering {
        Steering { by, wanted: wanted.kind, reason, order: Vec::new() }
    }

    /// What chooses.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.by {
            By::Exact { .. } => self.wanted,
            By::Random(_) => Kind::Random,
            By::Hash => Kind::Hash,
        }
    }

    /// Why nothing better chooses, and what to do about it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether what waits at a socket moves to the others when the socket is shut down.
    #[must_use]
    pub fn migrates(&self) -> bool {
        matches!(&self.by, By::Exact { exact, .. } if exact.migrates())
    }

    /// Refuses every new connection from now on, while what waits stays. Returns false without the exact program, which
    /// alone can do that.
    #[must_use]
    pub fn refuse(&self) -> bool {
        match &self.by {
            By::Exact { exact, .. } => exact.refuse(),
            By::Random(_) | By::Hash => return false,
        }
        true
    }

    /// A slot's socket, which listens with `SO_REUSEPORT`, takes part from now on. The slots must
    /// enter in the order in which their sockets began to listen.
    ///
    /// # Errors
    /// The error of `bpf(2)` or `setsockopt(2)`.
    pub fn enter(&mut self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.by {
            By::Exact { exact, attached } => {
                exact.enter(slot, socket)?;
                if !std::mem::replace(attached, true) {
                    exact.attach(socket)?;
                }
            }
            By::Random(members) => members.enter(slot),
            By::Hash => {}
        }
        Ok(())
    }

    /// A slot's socket is about to be shut down.
    pub fn leave(&mut self, slot: u32) {
        self.order.retain(|share| share.slot != slot);
        match &mut self.by {
            By::Exact { exact, .. } => exact.order(&self.order),
            By::Random(members) => {
                members.leave(slot);
                // The other slots have other places now, so the next order is a new program even if it is the same.
                self.order.clear();
            }
            By::Hash => {}
        }
    }

    /// Says which slots are eligible, and what each should get. Returns whether that is new. `socket` is any of the
    /// group.
    pub fn order(&mut self, shares: &[Share], socket: BorrowedFd<'_>) -> bool {
        if self.order == shares {
            return false;
        }
        self.order = shares.to_vec();
        match &self.by {
            By::Exact { exact, .. } => exact.order(shares),
            By::Random(members) => {
                if let Err(error) = bpf::attach_classic(&random::program(&members.places(shares)), socket) {
                    let reason = format!("the kernel takes no classic program either: {error}");
                    self.reason = Some(reason);
                    self.by = By::Hash;
                }
            }
            By::Hash => {}
        }
        true
    }

    /// The slots that are eligible now.
    #[must_use]
    pub fn eligible(&self) -> &[Share] {
        &self.order
    }

    /// Connections steered so far; 0 where nothing counts.
    #[must_use]
    pub fn steered(&self) -> u64 {
        match &self.by {
            By::Exact { exact, .. } => exact.steered(),
            By::Random(_) | By::Hash => 0,
        }
    }

    /// Connections steered to a slot so far; `None` where nothing counts.
    #[must_use]
    pub fn steered_to(&self, slot: u32) -> Option<u64> {
        match &self.by {
            By::Exact { exact, .. } => Some(exact.steered_to(slot)),
            By::Random(_) | By::Hash => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_has_its_place_taken_by_the_last() {
        let mut members = Members::default();
        for slot in [0, 1, 2, 3, 1] {
            members.enter(slot);
        }
        members.leave(1);
        members.leave(7);
        assert_eq!(members, Members(vec![0, 3, 2]));
        let shares = [(2, 1), (3, 5), (9, 1)].map(|(slot, weight)| Share { slot, weight });
        assert_eq!(members.places(&shares), [(2, 1), (1, 5)]);
    }

    /// A group as another version passed it on.
    fn passed(words: usize, program_is: &str) -> Passed {
        let exact = format!(r#""state":7,"sockets":8,"program":9,"migrates":true,"words":{words}{program_is}"#);
        let text =
            format!(r#"{{"by":{{"Exact":{{"exact":{{{exact}}},"attached":true}}}},"reason":null,"order":[0,1]}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_the_same_program_with_the_same_memory_is_taken_over() {
        let same = program::fingerprint(Choice::InTurn);
        let is = |print: u64| format!(r#","program_is":["InTurn",{print}]"#);
        assert!(passed(program::WORDS, &is(same)).is_understood());
        assert!(!passed(program::WORDS, &is(same ^ 1)).is_understood());
        assert!(!passed(program::WORDS - 1, &is(same)).is_understood());
        // Versions that knew only one program had this memory.
        assert!(!passed(2050, "").is_understood());
    }
}
