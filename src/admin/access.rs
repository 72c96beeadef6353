//! Who may ask for what. Reading needs no token where only this machine can ask: at loopback addresses and Unix
//! sockets. Everything else needs one. A browser is told apart from other programs by what it says of itself: the `Host`
//! that it believes to ask, against names that were made to lead here (DNS rebinding), and the `Origin` of the page that
//! asks, against pages of others.

use super::token::Token;
use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Who can reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Who may open the file of the socket.
    File,
    /// Every process of this machine, and its browsers.
    Machine,
    /// Other machines, too.
    Network,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is for another host.
    Host,
    /// A page of another origin sent it.
    Origin,
    /// It has no token, and needs one.
    NoToken,
    /// Its token is wrong.
    WrongToken,
}

impl Refused {
    /// The status, and what to tell.
    #[must_use]
    pub fn said(self) -> (StatusCode, &'static str) {
        match self {
            Refused::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "the Host of this request is neither an address nor localhost; ask by the address",
            ),
            Refused::Origin => (StatusCode::FORBIDDEN, "a page of another origin may not do this"),
            Refused::NoToken => {
                (StatusCode::UNAUTHORIZED, "this needs the token: Authorization: Bearer TOKEN (see --admin-token-file)")
            }
            Refused::WrongToken => (StatusCode::UNAUTHORIZED, "wrong token (see --admin-token-file)"),
        }
    }
}

/// Whether a request may be answered.
///
/// # Errors
/// [`Refused`].
pub fn check(reach: Reach, method: &Method, headers: &HeaderMap, token: &Token) -> Result<(), Refused> {
    let said = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = said(header::HOST).unwrap_or_default();
    if reach == Reach::Machine && !is_here(host) {
        return Err(Refused::Host);
    }
    let reads = method == Method::GET || method == Method::HEAD;
    if !reads {
        // Browsers send both with such a request; other programs send neither.
        let foreign = said(header::ORIGIN).is_some_and(|origin| {
            let origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            origin.is_none_or(|origin| !origin.eq_ignore_ascii_case(host))
        });
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        if foreign || site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return Err(Refused::Origin);
        }
    }
    if reads && reach != Reach::Network {
        return Ok(());
    }
    match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        None => Err(Refused::NoToken),
        Some(said) if token_in(said).is_some_and(|said| token.is(&said)) => Ok(()),
        Some(_) => Err(Refused::WrongToken),
    }
}

/// Whether a browser that asks this host can only mean this machine: an address cannot be made to lead elsewhere, and
/// names end in `localhost` (RFC 6761).
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// The token of `Bearer TOKEN`, or the password of `Basic`, which is what browsers can send by themselves (RFC 7617).
fn token_in(said: &str) -> Option<String> {
    let (scheme, value) = said.split_once(' ')?;
    match () {
        () if scheme.eq_ignore_ascii_case("bearer") => Some(value.trim().to_owned()),
        () if scheme.eq_ignore_ascii_case("basic") => {
            let decoded = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
            decoded.split_once(':').map(|(_, password)| password.to_owned())
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn asked(reach: Reach, method: Method, headers: &[(&'static str, &str)]) -> Result<(), Refused> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        let token = Token::read(&path).unwrap();
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        check(reach, &method, &all, &token)
    }

    #[test]
    fn this_machine_reads_without_a_token_and_only_by_its_own_names() {
        for host in ["127.0.0.1:9901", "[::1]:9901", "localhost", "LocalHost:1", "web.localhost.", "10.0.0.1"] {
            assert_eq!(asked(Reach::Machine, Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil", "evil:9901", "localhost.evil", "127.0.0.1.evil", "", "[::1", "evil:127.0.0.1"] {
            assert_eq!(asked(Reach::Machine, Method::GET, &[("host", host)]), Err(Refused::Host), "{host}");
        }
        assert_eq!(asked(Reach::File, Method::GET, &[("host", "anything")]), Ok(()));
        assert_eq!(asked(Reach::Network, Method::GET, &[("host", "web1:9901")]), Err(Refused::NoToken));
    }

    #[test]
    fn a_change_needs_the_token_and_a_page_of_ours() {
        let bearer = format!("Bearer {TOKEN}");
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("me:{TOKEN}")));
        let host = ("host", "127.0.0.1:9901");
        for said in [&bearer, &basic] {
            assert_eq!(asked(Reach::Machine, Method::POST, &[host, ("authorization", said)]), Ok(()));
            assert_eq!(asked(Reach::Network, Method::GET, &[("host", "web1"), ("authorization", said)]), Ok(()));
        }
        assert_eq!(asked(Reach::File, Method::POST, &[host]), Err(Refused::NoToken));
        for wrong in ["Bearer", "Bearer x", "Basic x", "Basic", "Digest 0123456789abcdef", TOKEN] {
            let asked = asked(Reach::Machine, Method::POST, &[host, ("authorization", wrong)]);
            assert_eq!(asked, Err(Refused::WrongToken), "{wrong}");
        }
        let from =
            |origin| asked(Reach::Machine, Method::POST, &[host, ("authorization", &bearer), ("origin", origin)]);
        assert_eq!(from("http://127.0.0.1:9901"), Ok(()));
        for origin in ["null", "http://evil", "http://127.0.0.1:9902", "127.0.0.1:9901", "http://127.0.0.1:9901.evil"] {
            assert_eq!(from(origin), Err(Refused::Origin), "{origin}");
        }
        let site =
            |site| asked(Reach::Machine, Method::POST, &[host, ("authorization", &bearer), ("sec-fetch-site", site)]);
        assert_eq!((site("same-origin"), site("cross-site")), (Ok(()), Err(Refused::Origin)));
    }
}
