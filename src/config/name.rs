//! The names of apps: each is part of the names of files.

/// All of them, so that no app has this name.
pub const ALL: &str = "all";

/// How long a name may be, in bytes.
pub const LENGTH_MAX: usize = 64;

/// A text in which what a name cannot have is replaced, or at its beginning left out.
#[must_use]
pub fn clean(text: &str) -> String {
    let clean: String = text.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    clean.trim_start_matches('.').to_owned()
}

fn fits(c: char) -> bool {
    c.is_alphanumeric() || "-_.".contains(c)
}

/// A name as typed.
///
/// # Errors
/// Says what a name looks like.
pub fn parse(text: &str) -> Result<String, String> {
    let is_short = !text.is_empty() && text.len() <= LENGTH_MAX && !text.starts_with('.');
    if text == ALL {
        return Err(format!("{ALL} means all of them; choose another name"));
    }
    match is_short && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, '-', '_' or '.', and does not begin with '.'".to_owned()),
    }
}
