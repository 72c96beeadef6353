//! The front as its users meet it, through the real binary with real workers. Everything here needs
//! nothing but Rust, a C compiler and Python 3; real servers are in `tests/servers.rs`.
//!
//! - `serving`: every way of waiting gets its exact share
//! - `policies`: which worker gets a connection
//! - `admin`: metrics, probes, events and changes over HTTP, also under attack
//! - `admission`: who is let in, and what becomes of the others
//! - `addresses`: what can be bound, by whom, and who may have it afterwards
//! - `background`: apps that are started, found, stopped and forgotten, and their logs
//! - `bypass`: workers that go around the adapters are noticed
//! - `check`: what `maitred check` promises, compared with what then happens
//! - `inherit`: listening sockets by the conventions of other managers
//! - `kernel`: one socket per slot, steered by a program in the kernel
//! - `steering`: its policies and weights
//! - `native`: the protocol, spoken by hand and by the Rust library
//! - `seccomp`: static binaries, supervised from outside
//! - `supervision`: forking, crashing, stopping, scaling
//! - `left_behind`: who ends with a worker, who with the master
//! - `strangers`: others on the machine, and workers that attack: nothing freezes, leaks or is lost
//! - `misbehaviour`: workers that do what they should not
//! - `hostile`: a worker that turned against its master and a stranger, drawn from a seed
//! - `hangups`: descriptors that others shut down, close or make block; an idle master sleeps
//! - `inherited_numbers`: descriptors that the master is started with
//! - `limits`: too few descriptors, too little room
//! - `ready`: when a worker counts as ready
//! - `reload`: other workers in the place of those that run
//! - `mending`: a reload of a fleet of which a part fails, and one that is given up
//! - `health`: stalls, probes, heartbeats, watchdogs, and workers that had their time
//! - `lives`: draining, scaling, crash loops, pausing, the control socket
//! - `lab`: measuring with `maitred bench`
//! - `messages`: what is said to people, where nobody reads it, and by threads that cannot be had
//! - `paths`: the shim's file, the control socket, and what is trusted on the way there
//! - `rights`: workers get what their own user may have, and no more
//! - `processes`: what workers' processes get: a user, limits, a root directory; the pid file; who may ask
//! - `triggers`: reloads when files change, and at certain times
//! - `sizing`: as many workers as are needed
//! - `refusals`: what cannot be started, and what is said about it
//! - `manual`: the README and the manual do what they say

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod admin;
mod admission;
mod background;
mod bypass;
mod calls;
mod check;
mod datagrams;
mod day;
mod draining;
mod files;
mod hangups;
mod health;
mod home;
mod hostile;
mod inherit;
mod inherited_numbers;
mod kernel;
mod lab;
mod left_behind;
mod limits;
mod lines;
mod lives;
mod loops;
mod manual;
mod mending;
mod messages;
mod misbehaviour;
mod native;
mod paths;
mod policies;
mod processes;
mod ready;
mod refusals;
mod reload;
mod rights;
mod screen;
mod seccomp;
mod service;
mod serving;
mod sizing;
mod steering;
mod strangers;
mod supervision;
mod triggers;
mod up;
mod upgrade;
mod wrappers;
