//! A configuration file, through words and the parser of the command line to what is meant.
#![no_main]

#[path = "../no_names.rs"]
mod no_names;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = maitred::fuzzing::configuration(text);
});
