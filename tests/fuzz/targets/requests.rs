//! A line of JSON on the control socket, and the answer that a client reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::control::{Refusal, Request, Size, status::Status};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let again = serde_json::to_string(&request).and_then(|text| serde_json::from_str(&text));
        assert_eq!(again.ok(), Some(request));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = text.parse::<Size>();
    let _ = serde_json::from_str::<Status>(text);
    // A master's answer, which is cleaned for scripts and for people.
    let clean = maitred::core::visible::json(text);
    if serde_json::from_str::<Refusal>(text).is_ok() {
        assert!(serde_json::from_str::<Refusal>(&clean).is_ok());
    }
    let _ = maitred::core::visible::line(text);
});
