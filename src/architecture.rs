//! How the code is laid out.
//!
//! # The straight way of a connection
//!
//! ```text
//! client ──▶ kernel's accept queue ──▶ master ──▶ hand-off socket of one worker ──▶ accept()
//!            sys::listen               front::accept     sys::fd                    in the worker
//!                                      front::admission
//!                                      core::policy
//!                                      front::handoff
//! ```
//!
//! The master accepts a connection ([`crate::front::accept`]), asks the policy whose turn it is
//! ([`crate::core::policy`], through [`crate::front::worker_set`]) and sends the descriptor to that worker
//! ([`crate::front::handoff`], [`crate::sys::fd`]). It keeps no table of connections: what a worker has not
//! taken yet waits in the kernel's socket queue, of which the master holds the receiving end too,
//! so that it can be taken back when the worker dies. Only a policy that goes by load, or a limit, makes
//! it remember which connections are open ([`crate::front::opens`]), by cookies and not by descriptors; who is
//! beyond a limit is turned away ([`crate::front::refuse`]).
//!
//! # The other way: control
//!
//! [`crate::cli`] → [`crate::config`] → [`crate::master::run`] → [`crate::core::fleet`] → [`crate::workers::start`] →
//! ready ([`crate::lifecycle`]). What an option is called, whether a reload may change it and where it acts is one table,
//! [`crate::config::options`]. What happens to workers comes in as events, what is to be done goes out as actions; the
//! fleet itself touches nothing. [`crate::master::upgrade`] replaces the program itself while all of that goes on.
//!
//! # How an unmodified program takes part
//!
//! [`crate::adapt`] looks at the executable. Into a dynamically linked one the loader puts a shim
//! ([`crate::adapt::preload`]) that places the hand-off socket under the program's own listening
//! descriptor. A static one runs under a filter: its `bind`, `listen` and `accept` calls are answered
//! from outside ([`crate::sys::seccomp`], [`crate::workers::supervised`]). One that knows how to inherit a listening
//! socket gets it in the way that it knows ([`crate::adapt::preset`]). A program can also speak the protocol
//! itself ([`crate::wire`]); [`crate::worker`] does that for Rust.
//!
//! # Without the master in the way
//!
//! In kernel mode each worker has a listening socket ([`crate::kernel::group`]), and a program in the kernel
//! takes turns among them, or keeps each client at its own ([`crate::kernel`]); the master only says who is eligible,
//! and for how much.
//!
//! [`crate::check`] says beforehand which of all this works here.
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
//! | `wire` | what is said between a worker and the master | |
//! | `reports` | how a part says upward what happened | |
//! | `provoked` | lines of the log that a worker can provoke | `core` |
//! | `sys` | the kernel's calls | `wire` |
//! | `clock` | what time it is for `core` | `core`, `sys` |
//! | `aside` | what would hold up the loop | `sys` |
//! | `config` | what an operator asked for | `core`, `sys`, `wire` |
//! | `adapt` | how an unmodified program takes part | `config`, `sys`, `wire` |
//! | `activity` | whether anything goes on | |
//! | `kernel` | kernel mode: the program and its maps, its sockets, what each slot should get | `aside`, `activity`, `clock`, `config`, `core`, `reports`, `sys` |
//! | `front` | the way of a connection | `aside`, `activity`, `clock`, `config`, `core`, `kernel`, `provoked`, `reports`, `sys`, `wire` |
//! | `workers` | one worker as a process | `adapt`, `activity`, `clock`, `config`, `core`, `front`, `provoked`, `reports`, `sys`, `wire` |
//! | `lifecycle` | what happens to workers | `adapt`, `activity`, `clock`, `config`, `control`, `core`, `front`, `kernel`, `reports`, `sys`, `wire`, `workers` |
//! | `worker` | for servers written in Rust | `sys`, `wire` |
//! | `manual` | the chapters | |
//! | `control` | the socket for commands, and its client | `core`, `reports`, `sys` |
//!
//! [`crate::master`] is the loop that joins them; it, and what is above it, may use all.
//! A part reports upward in words of its own ([`crate::reports`]); [`crate::master::event`] wraps them. A test reads this table and
//! the `use` lines, and fails when one goes against the other.
//!
//! # What is deliberately absent
//!
//! - [`crate::core`] and [`crate::wire`] touch no socket, no clock and no file.
//! - Unsafe code lives in [`crate::sys`] and in the shim, nowhere else.
//! - The master never reads or writes a byte of a connection, and never keeps its descriptor.
