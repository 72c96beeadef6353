//! How the code is laid out.
//!
//! # The path of a connection
//!
//! ```text
//! client ──▶ kernel's accept queue ──▶ master ──▶ hand-off socket of one worker ──▶ accept()
//!            sys::socket::listen       front::accept     sys::fd                    in the worker
//!                                      front::admission
//!                                      core::policy
//!                                      front::handoff
//! ```
//!
//! The master accepts a connection ([`crate::front::accept`]), asks the policy which worker is next
//! ([`crate::core::policy`], through [`crate::front::worker_set`]) and sends the descriptor to that worker
//! ([`crate::front::handoff`], [`crate::sys::fd`]). It keeps no table of connections: what a worker has not taken yet
//! waits in the kernel's socket queue. The master holds the receiving end of that queue, too, so it can take
//! connections back when the worker dies. Only a policy that goes by load, or a limit, makes it remember which
//! connections are open ([`crate::opens`]), by cookies and not by descriptors. A connection beyond a limit is
//! turned away ([`crate::front::refuse`]).
//!
//! # Control
//!
//! [`crate::cli`] → [`crate::config`] → [`crate::master::run`] → [`crate::core::fleet`] → [`crate::workers::start`] →
//! ready ([`crate::lifecycle`]). One table, [`crate::config::options`], says what an option is called, whether a reload
//! may change it and where it acts. What happens to workers comes in as events, and what is to be done goes out as
//! actions; the fleet itself has no side effects. [`crate::master::upgrade`] replaces the program itself while all of
//! that goes on.
//!
//! # How an unmodified program takes part
//!
//! [`crate::adapt`] looks at the executable. The loader puts a shim ([`crate::adapt::preload`]) into a dynamically
//! linked one; it places the hand-off socket under the program's own listening descriptor. A static one runs under a
//! filter: the master answers its `bind`, `listen` and `accept` calls from outside ([`crate::sys::seccomp`],
//! [`crate::workers::supervised`]). One that knows how to inherit a listening socket gets it in the way that it knows
//! ([`crate::adapt::preset`]). A program can also speak the protocol itself ([`crate::wire`]); [`crate::worker`] does
//! that for Rust.
//!
//! # Kernel mode
//!
//! In kernel mode each worker has a listening socket ([`crate::kernel::group`]). A program in the kernel takes turns
//! among them, or keeps each client at its own ([`crate::kernel`]). The master only says which sockets are eligible,
//! and for how much.
//!
//! [`crate::check`] reports beforehand which of all this works here.
//!
//! # In the background
//!
//! `maitred start` runs `maitred run` as a process of its own and remembers what was typed ([`crate::apps`]). There is
//! no process above the masters: the commands find each at its control socket, and what does not run in the state.
//!
//! # Seen from outside
//!
//! [`crate::master`] writes down what happens in a journal ([`crate::control::journal`]) and counts it. A thread of its
//! own serves that over HTTP ([`crate::admin`]); it asks masters as any client of the control socket does, so the same
//! code shows one app or all of the machine.
//!
//! # Measuring
//!
//! [`mod@crate::bench`] runs this very program in each mode under its own clients and compares: how evenly, how
//! fast, at what cost.
//!
//! # Which part uses which
//!
//! | part | what is in it | may use |
//! |---|---|---|
//! | `core` | decisions | |
//! | `wire` | what a worker and the master say to each other | |
//! | `reports` | how a part reports upward what happened | |
//! | `provoked` | lines of the log that a worker can provoke | `core` |
//! | `sys` | system calls: descriptors, memory, filters, rights | `wire` |
//! | `sys::socket` | sockets | `sys`, `wire` |
//! | `sys::process` | processes: how they are started, watched and ended, and what they have open | `sys`, `sys::socket`, `wire` |
//! | `clock` | what time it is for `core` | `core`, `sys` |
//! | `aside` | work that would hold up the loop | |
//! | `logs` | where lines go: this process's own output, or files | `sys` |
//! | `config` | what an operator asked for | `core`, `sys`, `sys::process`, `wire` |
//! | `triggers` | what asks for a reload by itself: files that change, times | `config`, `core`, `reports` |
//! | `adapt` | how an unmodified program takes part | `config`, `sys`, `sys::process`, `wire` |
//! | `activity` | whether anything goes on | |
//! | `kernel` | kernel mode: the program and its maps, its sockets, what each slot should get | `aside`, `activity`, `clock`, `config`, `core`, `reports`, `sys`, `sys::process`, `sys::socket` |
//! | `opens` | which connections are open | `aside`, `activity`, `clock`, `config`, `core`, `sys`, `sys::socket`, `wire` |
//! | `datagrams` | UDP addresses that workers share | `config`, `core`, `sys`, `sys::socket`, `wire` |
//! | `front` | the path of a connection | `aside`, `activity`, `clock`, `config`, `core`, `datagrams`, `kernel`, `opens`, `provoked`, `reports`, `sys`, `sys::socket`, `wire` |
//! | `workers` | one worker as a process | `adapt`, `activity`, `clock`, `config`, `core`, `front`, `logs`, `provoked`, `reports`, `sys`, `sys::process`, `sys::socket`, `wire` |
//! | `lifecycle` | what happens to workers | `adapt`, `activity`, `clock`, `config`, `control`, `core`, `front`, `kernel`, `reports`, `sys`, `sys::process`, `sys::socket`, `wire`, `workers` |
//! | `apps` | what is started in the background, and what runs together: what is remembered of it, its logs | `clock`, `config`, `control`, `core`, `logs`, `sys`, `sys::process` |
//! | `admin` | HTTP: metrics, probes, events, the page | `apps`, `config`, `control`, `core`, `reports`, `sys`, `sys::process`, `sys::socket`, `wire` |
//! | `worker` | for servers written in Rust | `sys`, `wire` |
//! | `manual` | the chapters | |
//! | `control` | the socket for commands, and its client | `core`, `logs`, `reports`, `sys`, `sys::process`, `sys::socket` |
//!
//! [`crate::master`] is the loop that joins them. It, and what is above it, may use all parts. Two parts of it stand in
//! folders of their own and do not know each other: `master::requests` answers what workers ask for, and
//! `master::upgrade` goes on under a new binary. A part reports upward with events of its own
//! ([`crate::reports`]); [`crate::master::event`] wraps them. A test reads this table and the `use` lines, and fails
//! when they disagree, or when a part or a file outgrows what one can read: 4000 lines for a part, 400 for a file,
//! without tests. Only the lab is larger ([`mod@crate::bench`]).
//!
//! # What is deliberately absent
//!
//! - [`crate::core`] and [`crate::wire`] touch no socket, no clock and no file.
//! - Unsafe code lives in [`crate::sys`] and in the shim, nowhere else.
//! - The master never reads or writes a byte of a connection, and never keeps its descriptor.
