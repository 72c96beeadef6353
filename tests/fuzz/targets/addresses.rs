//! Addresses in all their forms: of the channel, of `--bind`, of `--private`, and of a peer.
#![no_main]

#[path = "../no_names.rs"]
mod no_names;

use libfuzzer_sys::fuzz_target;
use maitred::config::bind::Bind;
use maitred::config::private::Private;
use maitred::wire::address::Address;
use maitred::wire::peer;

fuzz_target!(|bytes: &[u8]| {
    if let Some(peer) = peer::decode(bytes) {
        let (encoded, length) = peer::encode(peer);
        assert_eq!(peer::decode(&encoded[..length]), Some(peer));
        for family in [2, 10, 1] {
            let _ = peer::in_family(peer, family);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = text.parse::<Bind>();
    let (first, second) = text.split_once('\n').unwrap_or((text, text));
    let address = first.parse::<Address>();
    if let Ok(address) = &address {
        assert_eq!(address.to_string().parse::<Address>().as_ref(), Ok(address));
        if let Ok(other) = second.parse::<Address>() {
            assert_eq!(address.covers(&other), other.covers(address));
        }
    }
    if let (Ok(private), Ok(asked)) = (second.parse::<Private>(), address) {
        let _ = private.covers(&asked);
    }
});
