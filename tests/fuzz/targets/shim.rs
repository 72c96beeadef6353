//! The shim's text: packets of the master, addresses that a program passes to `bind`, peers of a hand-off.
//!
//! The shim is a crate of its own without std, so its two files are included as they are: `abi` only needs a
//! libc, which every program here has.
#![no_main]

#[allow(dead_code, unused_macros, unused_imports, reason = "the target calls a part of the shim's file")]
#[path = "../../../src/adapt/preload/shim/abi.rs"]
mod abi;
#[allow(dead_code, unused_imports, reason = "the target calls a part of the shim's file")]
#[path = "../../../src/adapt/preload/shim/text.rs"]
mod text;

use abi::ADDRESS_MAX;
use libfuzzer_sys::fuzz_target;
use text::{Packet, Requested, absolute, family_of, in_family, name_of, port_of, value};

fuzz_target!(|bytes: &[u8]| {
    // A packet of the master.
    for key in ["LISTENING", "FOLLOWS", "ID", "VIA", "ERROR", "COUNT", ""] {
        if let Some(value) = value(bytes, key) {
            let _ = port_of(value);
            if let Some(name) = name_of(value) {
                assert!(name.len <= ADDRESS_MAX);
                // SAFETY: as many bytes are there, by the line above.
                let again = unsafe { Requested::read(name.bytes.as_ptr(), name.len as u32) };
                if let (Some(Requested::Ip(read)), Ok(meant)) = (again, value.trim_start_matches("tcp:").parse()) {
                    let meant: std::net::SocketAddr = meant;
                    assert_eq!((read.ip(), read.port()), (meant.ip(), meant.port()));
                }
            }
        }
    }
    // The payload of a hand-off, as any peer of ours could have it.
    for family in [abi::AF_INET, abi::AF_INET6, abi::AF_UNIX] {
        let (_, length) = in_family(bytes, family);
        assert!(length <= ADDRESS_MAX);
    }
    // What a program passes to bind.
    // SAFETY: a slice, and its length.
    let asked = unsafe {
        family_of(bytes.as_ptr(), bytes.len() as u32).and(Requested::read(bytes.as_ptr(), bytes.len() as u32))
    };
    if let Some(asked) = asked {
        let mut packet = Packet::default();
        asked.write(&mut packet, "LISTEN");
        assert!(packet.complete());
        // One line, whatever the name is, and one that the master reads.
        let line = packet.bytes().strip_suffix(b"\n").expect("a line");
        assert!(!line.contains(&b'\n'));
        let with_id = [line, b"\nID=1\n"].concat();
        assert!(maitred::wire::packet::read(&with_id).is_ok(), "{}", String::from_utf8_lossy(line));
    }
    let _ = absolute(bytes);
});
