//! The fairness lab, `maitred bench`: which way of distributing connections suits a server?
//!
//! ```text
//! cli ──▶ plan ──▶ session: rounds, in each of which every subject has its turn
//!                     │
//!                     ├─ subject   starts `maitred run`, a peer, or points at what runs already
//!                     ├─ run       before ─▶ load ─▶ after, and what the difference means
//!                     │    ├─ load       the clients
//!                     │    ├─ observe    costs and open connections, read from outside
//!                     │    ├─ disturb    stops and kills workers, where the workload says so
//!                     │    ├─ command    runs the user's own command again and again (--disturb)
//!                     │    └─ record     what came of it, as it is written down
//!                     ▼
//!                  summary ──▶ doubts ──▶ report: table, JSON, CSV, page, plots
//! ```
//!
//! Three parties count which worker served what, as far as each can: the front ([`crate::control::status`]), the
//! clients by the header `Maitred-Slot`, and the kernel (open connections, sampled; [`observe`] says how). If they
//! should agree and do not ([`agree`]), the run is invalid. [`crate::core::spread`] says what is computed from the
//! counts, [`workload`] what the clients do, [`verdict`] the result in words,
//! [`doubts`] what a reader should treat with care.

pub mod agree;
pub mod command;
pub mod disturb;
pub mod doubts;
pub mod error;
pub mod load;
pub mod machine;
pub mod observe;
pub mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod session;
pub mod sources;
pub mod stop;
pub mod subject;
pub mod summary;
pub mod verdict;
pub mod worker;
pub mod workload;
