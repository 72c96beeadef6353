//! What `/proc` tells of a worker, whose name and files the worker has chosen.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| maitred::fuzzing::proc(bytes));
