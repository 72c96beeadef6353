//! Which apps a command is about: names, patterns as of a shell, or `all`.

use glob::{MatchOptions, Pattern};

pub use crate::config::name::ALL;

/// Whether a word can mean several.
#[must_use]
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// Chooses from the names there are. Each word is a name, a pattern, or `all`; the choice has no name twice. A word that
/// is no pattern is chosen also if no such name is there: who acts on it can say more.
///
/// # Errors
/// Says which pattern matches nothing, or is none.
pub fn select(words: &[String], there: &[String]) -> Result<Vec<String>, String> {
    let mut chosen: Vec<String> = Vec::new();
    for word in words {
        let found: Vec<String> = if word == ALL && !there.contains(word) {
            there.to_vec()
        } else if is_pattern(word) {
            let pattern = Pattern::new(word).map_err(|error| format!("{word}: {error}"))?;
            let matches = |name: &&String| pattern.matches_with(name, MatchOptions::new());
            there.iter().filter(matches).cloned().collect()
        } else {
            vec![word.clone()]
        };
        if found.is_empty() {
            return Err(match there {
                [] => format!("{word}: there is no app"),
                there => format!("{word}: no app has such a name; there are {}", there.join(", ")),
            });
        }
        for name in found {
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str], there: &[&str]) -> Result<Vec<String>, String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        select(&owned(words), &owned(there))
    }

    #[test]
    fn names_patterns_and_all_are_understood_and_nothing_is_chosen_twice() {
        let there = ["api-1", "api-2", "web"];
        assert_eq!(chosen(&["web"], &there).unwrap(), ["web"]);
        assert_eq!(chosen(&["api-*", "web", "api-1"], &there).unwrap(), ["api-1", "api-2", "web"]);
        assert_eq!(chosen(&["all"], &there).unwrap(), there);
        assert_eq!(chosen(&["nobody"], &there).unwrap(), ["nobody"]);
        assert_eq!(chosen(&["all"], &["all", "web"]).unwrap(), ["all"]);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        assert!(chosen(&["x*"], &["web"]).unwrap_err().contains("there are web"));
        assert!(chosen(&["all"], &[]).unwrap_err().contains("there is no app"));
        assert!(chosen(&["[", "web"], &["web"]).is_err());
    }
}
