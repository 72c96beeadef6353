//! What the next program reads of the one before it at an upgrade.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = maitred::fuzzing::state(bytes);
});
