//! The names of the environment variables that carry maitred's facts to a worker.
//!
//! Only constants, no code: the preload shim includes this very file, so that both sides of the
//! process boundary read the same spelling.

/// Slot of the worker, `0..N-1`; stable when the worker is forked again.
pub const SLOT: &str = "MAITRED_SLOT";
/// Unique id of the worker; grows with every fork.
pub const WORKER: &str = "MAITRED_WORKER";
/// Generation of the worker; one more per reload.
pub const GENERATION: &str = "MAITRED_GENERATION";
/// Descriptor number of the control channel.
pub const CHANNEL: &str = "MAITRED_CHANNEL";
/// Inode of the control channel's socket: proof that the descriptor number still means the channel
/// when a wrapper has closed inherited descriptors and opened others.
pub const CHANNEL_INODE: &str = "MAITRED_CHANNEL_INODE";
/// `NAME TOKEN`: the rendezvous, an abstract Unix socket where the master is reached when the channel was closed, and
/// the worker's secret for it.
pub const RENDEZVOUS: &str = "MAITRED_DOOR";
/// Process id of the master.
pub const MASTER: &str = "MAITRED_MASTER";
/// Random. All that descends from one master has it, even if it was left behind: it shows which master a process
/// belongs to after its parents have ended.
pub const FAMILY: &str = "MAITRED_FAMILY";
/// Colon-separated paths of Unix sockets that the master holds; a worker's `unlink` of one of them
/// must not take it from the others.
pub const UNIX_PATHS: &str = "MAITRED_UNIX";
/// What the worker does with an address on port 0, or with one that it inherits: see [`HANDOFF`] and
/// [`PORT_ZERO`]. Words, separated by spaces.
pub const HOW: &str = "MAITRED_HOW";
/// A word of [`HOW`]: the master hands connections over. Otherwise workers share listening sockets, which a
/// program that is executed recognises only by asking.
pub const HANDOFF: &str = "handoff";
/// A word of [`HOW`]: a port that the kernel chose may be shared, so the master is asked. Otherwise each
/// process has it for itself, as without a master.
pub const PORT_ZERO: &str = "port-zero";
/// How the name of a hand-off socket's other end begins: a program that was executed recognises what it
/// inherited by `getpeername(2)`.
pub const HANDOFF_NAME: &str = "maitred-handoff-";
/// The working directory, as the user named it (POSIX.1, "Environment Variables").
pub const PWD: &str = "PWD";
/// The slot again, under the name that PM2 users read.
pub const NODE_APP_INSTANCE: &str = "NODE_APP_INSTANCE";
/// Descriptor numbers of the listening sockets that the worker inherits, separated by spaces.
pub const INHERITED: &str = "MAITRED_FDS";
/// `PLACE PATH`: the file of 64-bit counters in which the one with this index counts what is accepted on
/// inherited sockets.
pub const COUNT: &str = "MAITRED_COUNT";
/// The descriptor to which a line is to be written when the worker is ready (`--ready fd`).
pub const READY_FD: &str = "MAITRED_READY_FD";
/// `check N` or `resume N`: a program that takes this one's place finds the state at this descriptor. Only
/// between two masters.
pub const UPGRADE: &str = "MAITRED_UPGRADE";
/// The descriptor of the old binary, to which a new one that cannot go on goes back.
pub const UPGRADE_BACK: &str = "MAITRED_UPGRADE_BACK";
/// Why the new binary could not go on.
pub const UPGRADE_FAILED: &str = "MAITRED_UPGRADE_FAILED";
/// What one master tells the next.
pub const BETWEEN_MASTERS: [&str; 3] = [UPGRADE, UPGRADE_BACK, UPGRADE_FAILED];
/// Where the dynamic loader looks for the shim.
pub const PRELOAD: &str = "LD_PRELOAD";

/// Number of listening descriptors, from 3 upwards (`sd_listen_fds(3)`).
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// Process id for which `LISTEN_FDS` is meant (`sd_listen_fds(3)`).
pub const LISTEN_PID: &str = "LISTEN_PID";
/// Colon-separated names of the descriptors (`sd_listen_fds_with_names(3)`).
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// Newer libsystemd checks this too, so an inherited one must be scrubbed.
pub const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";
/// Where to say `READY=1`; the worker gets its own, not the master's (`sd_notify(3)`).
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Microseconds within which `WATCHDOG=1` must come, the worker's own (`sd_watchdog_enabled(3)`).
pub const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
/// The master's own watchdog process id, which is not meant for the worker.
pub const WATCHDOG_PID: &str = "WATCHDOG_PID";
