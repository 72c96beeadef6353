//! What a worker sends on its control channel, at the rendezvous, or when it is probed, and what the master answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::wire::packet::{FromWorker, read, read_answer, write};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = read(bytes) {
        for said in &packet.says {
            if let FromWorker::Listen(listen) = said {
                // Compared with all that is bound, and shown to people.
                assert!(listen.address.covers(&listen.address));
                let _ = maitred::core::visible::line(&listen.address.to_string());
            }
        }
    }
    maitred::fuzzing::probe(bytes);
    if let Ok(Some(answer)) = read_answer(bytes) {
        // What was understood is understood again when it is written.
        let again = read_answer(write(&answer).as_bytes());
        assert_eq!(again, Ok(Some(answer)));
    }
});
