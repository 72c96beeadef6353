use super::*;

#[test]
fn a_wildcard_is_reached_by_loopback_and_covers_every_address() {
    let a = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(reachable(a("0.0.0.0:80")), a("127.0.0.1:80"));
    assert_eq!(reachable(a("[::]:80")), a("[::1]:80"));
    assert_eq!(reachable(a("127.0.0.2:80")), a("127.0.0.2:80"));
    assert!(covers(a("0.0.0.0:80"), a("127.0.0.1:80")));
    assert!(!covers(a("0.0.0.0:80"), a("127.0.0.1:81")));
    assert!(!covers(a("127.0.0.2:80"), a("127.0.0.1:80")));
}
