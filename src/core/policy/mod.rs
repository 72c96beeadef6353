//! Which worker is next. One file per policy; each is a pure function over what it is shown.

mod round_robin;

pub use round_robin::RoundRobin;
