//! A fuzzer asks no name server: this stands before libc's function in the executable, and knows no host.

use std::ffi::{c_char, c_int, c_void};

const EAI_NONAME: c_int = -2;

/// `getaddrinfo(3)`.
#[unsafe(no_mangle)]
extern "C" fn getaddrinfo(_: *const c_char, _: *const c_char, _: *const c_void, _: *mut *mut c_void) -> c_int {
    EAI_NONAME
}
