//! What is seen from outside: admin addresses, their token, and a command that is told of events.

use super::bind::Bind;
use std::path::PathBuf;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// Where metrics, probes, events and the page are served; nowhere if there are none.
    pub addresses: Vec<Bind>,
    /// The file with the token. Without one, a token is made and kept in the state directory.
    pub token_file: Option<PathBuf>,
    /// A command of the shell that is told of each event.
    pub on_event: Option<String>,
}

/// A value of `--admin`: an address as `--bind` has it, that this process makes itself.
///
/// # Errors
/// What is wrong with it.
pub fn address(text: &str) -> Result<Bind, String> {
    match text.parse::<Bind>().map_err(|error| error.to_string())? {
        Bind::Inherited(_) | Bind::Abstract(_) => {
            Err("expected HOST:PORT, :PORT, [IPV6]:PORT or unix:PATH?mode=OCTAL".to_owned())
        }
        address => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_others_can_find() {
        assert_eq!(address("127.0.0.1:9901"), Ok(Bind::Tcp(vec!["127.0.0.1:9901".parse().unwrap()])));
        assert!(matches!(address("unix:/run/a.sock?mode=660"), Ok(Bind::Unix { mode: Some(0o660), .. })));
        for text in ["9901", "unix:@x", "fd://3", "", "unix:x"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
