//! Makes characters visible that would act on a terminal: all text from outside (a worker's output, a path, an answer)
//! goes through here before it reaches the log, a terminal or an answer.
//!
//! Control characters (C0, DEL, C1) move the cursor, change colours or set the window title (`console_codes(4)`);
//! bidirectional marks, and line and paragraph separators, make a text look like a different one.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters of one outside text that are shown; the rest is left out and counted.
pub const SHOWN_MAX: usize = 2048;

/// How a character is written that must not appear as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// `\x1b`, `\u{202e}`: for people.
    Words,
    /// `\u001b`: the same string to a JSON reader.
    Json,
}

/// Whether a character does something other than being shown. Line ends and tabs do, too.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text as part of one line: line ends become visible too, and text beyond [`SHOWN_MAX`] is cut.
///
/// ```
/// use maitred::core::visible::line;
/// assert_eq!(line("\u{1b}[31mred\r\n"), "\\x1b[31mred\\r\\n");
/// ```
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) else {
        return escaped(text, acts, Escape::Words);
    };
    let (shown, rest) = text.split_at(end);
    let left_out = rest.chars().count();
    Cow::Owned(format!("{}… ({left_out} more)", escaped(shown, acts, Escape::Words)))
}

/// A text of several lines, for a terminal: line ends and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, acts_within_lines, Escape::Words)
}

/// A text that is JSON: it stays equivalent JSON, since acting characters can appear only in strings.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, acts_within_lines, Escape::Json)
}

fn acts_within_lines(c: char) -> bool {
    acts(c) && !matches!(c, '\n' | '\t')
}

fn escaped(text: &str, acts: fn(char) -> bool, escape: Escape) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match (c, escape) {
            (c, _) if !acts(c) => clean.write_char(c),
            (c, Escape::Json) => write!(clean, "\\u{:04x}", u32::from(c)),
            ('\n', Escape::Words) => clean.write_str("\\n"),
            ('\r', Escape::Words) => clean.write_str("\\r"),
            ('\t', Escape::Words) => clean.write_str("\\t"),
            (c, Escape::Words) if c.is_ascii() => write!(clean, "\\x{:02x}", u32::from(c)),
            (c, Escape::Words) => write!(clean, "\\u{{{:x}}}", u32::from(c)),
        };
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(line(text), expected);
    }

    #[test]
    fn what_acts_on_a_terminal_becomes_visible() {
        check("plain, öäü 漢字 🎩", "plain, öäü 漢字 🎩");
        check("\u{1b}]0;title\u{7}", "\\x1b]0;title\\x07");
        check("\u{9b}31m", "\\u{9b}31m");
        check("a\u{202e}b\u{2066}c\u{2028}d", "a\\u{202e}b\\u{2066}c\\u{2028}d");
        check("a\r\nb\tc\0\u{7f}", "a\\r\\nb\\tc\\x00\\x7f");
        assert_eq!(lines("a\r\n\tb"), "a\\r\n\tb");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let shown = line(&"ä".repeat(SHOWN_MAX + 5)).into_owned();
        assert!(shown.ends_with("ä… (5 more)") && shown.chars().count() < SHOWN_MAX + 20, "{shown}");
        check(&"ä".repeat(SHOWN_MAX), &"ä".repeat(SHOWN_MAX));
    }

    proptest! {
        #[test]
        fn json_means_the_same_and_acts_on_nothing(text: String) {
            let written = serde_json::to_string(&text).unwrap();
            let clean = json(&written);
            prop_assert!(!clean.contains(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&clean).unwrap(), text);
        }

        #[test]
        fn nothing_that_acts_is_left(text: String) {
            prop_assert!(!line(&text).contains(acts));
            prop_assert!(!lines(&text).contains(acts_within_lines));
        }
    }
}
