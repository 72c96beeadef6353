//! The preload shim: it lets an unmodified, dynamically linked server take its connections from maitred. The dynamic
//! loader loads it before libc, so the calls in [`hooks`] arrive here first.
//!
//! A worker needs two things from a listening socket: a notification when a connection waits, and a way to take it. A
//! `SOCK_SEQPACKET` socket on which each packet carries one connection gives both, so [`listening`] puts such a socket
//! under the number of the worker's own listening descriptor, and `accept` becomes one `recvmsg`. epoll, poll, select
//! and blocking calls keep working, because the kernel really has a readable socket there.
//!
//! The object is a separate crate, built by `build.rs` and embedded in the binary. It links to no libc: its calls are
//! resolved in whichever libc (glibc, musl) the worker already has.

#![no_std]

pub mod abi;
pub mod channel;
pub mod closing;
pub mod descriptors;
pub mod end;
#[path = "../../../wire/environment.rs"]
pub mod environment;
pub mod epoll;
pub mod follow;
pub mod hooks;
pub mod inherited;
pub mod listening;
pub mod numbers;
pub mod paths;
pub mod process;
pub mod settings;
pub mod table;
pub mod taken;
pub mod taking;
pub mod text;

/// Runs after the dynamic loader has loaded the shim and before the program's own code.
extern "C" fn start() {
    abi::resolve();
    process::start();
    settings::read();
    end::start();
    follow::start();
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// Nothing here panics on outside input; if a panic happened anyway, the worker would end and be forked again.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    abi::abort()
}

// Objects of `core` that were compiled to unwind refer to this symbol. This crate aborts, so nothing calls it; it is
// hidden, because a worker written in Rust has a real one.
core::arch::global_asm!(".globl rust_eh_personality", ".hidden rust_eh_personality", "rust_eh_personality: .quad 0");
