//! The kernel's answers about sockets (`sock_diag(7)`).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| maitred::fuzzing::sock_diag(bytes));
