//! The fairness lab.
pub mod disturb;
pub mod doubts;
pub mod error;
pub mod load;
pub mod observe;
pub mod plan;
pub mod report;
pub mod run;
pub mod session;
pub mod stop;
pub mod subject;
pub mod summary;
pub mod worker;
pub mod workload;
