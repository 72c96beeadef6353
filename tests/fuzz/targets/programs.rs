//! The executable that a command names: ELF files, scripts, and the words of wrappers and shells.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::adapt::{elf, inspect, wrappers};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

fuzz_target!(|bytes: &[u8]| {
    thread_local! {
        static FILE: File = File::from(maitred::fuzzing::executable_in_memory().expect("memfd_create(2)"));
    }
    FILE.with(|mut file| {
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(bytes));
        written.expect("memory");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let _ = elf::read(file);
        let _ = elf::is_whole(file);
        let _ = inspect::inspect(&[path.into()], None, None);
    });
    let words: Vec<OsString> = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let _ = wrappers::wrapped(&words);
    let _ = wrappers::drops_environment(&words);
    let _ = wrappers::name(&words);
});
