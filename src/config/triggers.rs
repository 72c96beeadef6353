//! What asks for a reload by itself: files that change, and times.

use chrono::{DateTime, Local};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use globset::{GlobBuilder, GlobMatcher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Files and directories that are watched, absolute.
    pub watch: Vec<PathBuf>,
    /// What is left out there.
    pub ignore: Vec<Ignored>,
    /// Files that this process writes, which do not count there.
    pub own: Vec<PathBuf>,
    /// How long it must have been quiet after a change.
    pub delay: Duration,
    /// Times of reloads.
    pub times: Vec<Times>,
}

/// What is left out in a watched directory: files and directories whose name, or whose path there if it has a `/`,
/// fits this pattern.
#[derive(Clone, Debug)]
pub struct Ignored {
    text: String,
    matcher: GlobMatcher,
}

impl Ignored {
    /// A pattern, as in `*.log` or `cache/**`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Ignored, String> {
        let glob = GlobBuilder::new(text.trim_end_matches('/')).literal_separator(true).build();
        let matcher = glob.map_err(|error| error.to_string())?.compile_matcher();
        Ok(Ignored { text: text.to_owned(), matcher })
    }

    /// Whether it fits a path, or a directory above it. The path is relative to what is watched.
    #[must_use]
    pub fn fits(&self, path: &Path) -> bool {
        match self.text.trim_end_matches('/').contains('/') {
            true => path.ancestors().any(|path| self.matcher.is_match(path)),
            false => path.components().any(|name| self.matcher.is_match(name)),
        }
    }
}

impl PartialEq for Ignored {
    fn eq(&self, other: &Ignored) -> bool {
        self.text == other.text
    }
}

impl Eq for Ignored {}

/// Times in the way of cron: minute, hour, day of the month, month, day of the week; with six fields, seconds before
/// them.
#[derive(Clone, Debug)]
pub struct Times {
    text: String,
    cron: Cron,
}

impl Times {
    /// Times, as in `0 4 * * *`, by the local clock.
    ///
    /// # Errors
    /// What is wrong with them, or that they never come.
    pub fn new(text: &str) -> Result<Times, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|error| {
            format!("{error}; expected minute, hour, day, month and weekday, as in \"0 4 * * *\" (each day at 4:00)")
        })?;
        let times = Times { text: text.to_owned(), cron };
        match times.next(SystemTime::now()) {
            Some(_) => Ok(times),
            None => Err("such a time never comes".to_owned()),
        }
    }

    /// The first of them after this time.
    #[must_use]
    pub fn next(&self, after: SystemTime) -> Option<SystemTime> {
        let after: DateTime<Local> = after.into();
        self.cron.find_next_occurrence(&after, false).ok().map(SystemTime::from)
    }
}

impl PartialEq for Times {
    fn eq(&self, other: &Times) -> bool {
        self.text == other.text
    }
}

impl Eq for Times {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_a_name_anywhere_or_a_path() {
        let fits = |pattern: &str, path: &str| Ignored::new(pattern).unwrap().fits(Path::new(path));
        assert!(fits("*.log", "a/b.log") && fits("node_modules", "a/node_modules/b/c.js") && fits("tmp/", "tmp/x"));
        assert!(fits("a/*.js", "a/b.js") && fits("cache/**", "cache/a/b") && fits("a/b", "a/b/c"));
        assert!(!fits("*.log", "a/b.logs") && !fits("a/*.js", "b/a/b.js") && !fits("a/*.js", "a/b/c.js"));
        assert!(!fits("*", ""));
        assert!(Ignored::new("a{").is_err());
        assert_eq!(Ignored::new("a"), Ignored::new("a"));
        assert_ne!(Ignored::new("a"), Ignored::new("b"));
    }

    #[test]
    fn times_have_five_fields_or_six() {
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let wait = |text: &str| Times::new(text).unwrap().next(after).unwrap().duration_since(after).unwrap();
        // The second is 20 in every zone.
        assert_eq!(wait("* * * * *"), Duration::from_secs(40));
        assert_eq!(wait("*/10 * * * * *"), Duration::from_secs(10));
        for text in ["", "0 4 * *", "61 * * * *", "soon", "0 0 30 2 *"] {
            assert!(Times::new(text).is_err(), "{text}");
        }
        assert_eq!(Times::new("0 4 * * *"), Times::new("0 4 * * *"));
        assert_ne!(Times::new("0 4 * * *"), Times::new("0 5 * * *"));
    }
}
