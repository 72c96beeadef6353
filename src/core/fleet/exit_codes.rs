//! Exit codes that are no failure (`--exit-codes`; systemd calls them `SuccessExitStatus=`).

use super::Exit;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A set of exit codes, 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCodes([u64; 4]);

impl ExitCodes {
    /// Whether a worker that ended in this way ended as it should.
    #[must_use]
    pub fn has(&self, exit: Exit) -> bool {
        match exit {
            Exit::Code(code) => {
                let code = usize::try_from(code).unwrap_or(usize::MAX);
                self.0.get(code / 64).is_some_and(|bits| bits & (1 << (code % 64)) != 0)
            }
            Exit::Signal(_) => false,
        }
    }
}

impl FromStr for ExitCodes {
    type Err = String;

    fn from_str(text: &str) -> Result<ExitCodes, String> {
        let mut codes = ExitCodes::default();
        for part in text.split(',') {
            let code: u8 =
                part.trim().parse().map_err(|_| "expected exit codes from 0 to 255, as in 0,64".to_owned())?;
            if let Some(bits) = codes.0.get_mut(usize::from(code) / 64) {
                *bits |= 1 << (code % 64);
            }
        }
        Ok(codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_codes_is_a_set() {
        let codes: ExitCodes = "0, 64,255".parse().unwrap();
        let found: Vec<i32> = (-1..300).filter(|code| codes.has(Exit::Code(*code))).collect();
        assert_eq!(found, [0, 64, 255]);
        assert!(!codes.has(Exit::Signal(0)) && !ExitCodes::default().has(Exit::Code(0)));
        for text in ["", "256", "-1", "0,,1", "TERM"] {
            assert!(text.parse::<ExitCodes>().is_err(), "{text}");
        }
    }
}
