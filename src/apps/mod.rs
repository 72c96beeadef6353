//! Apps: what is started in the background, and what runs together. Each is a master of its own. What was started is
//! remembered in files ([`state`]), so that the commands find it again, also when it is stopped; nothing stands above it.
//! Apps of a file can also run under one process, which is then in the foreground ([`up`]).

pub mod earlier;
pub mod import;
pub mod launch;
pub mod places;
pub mod plan;
pub mod select;
pub mod state;
pub mod tail;
pub mod units;
pub mod up;
