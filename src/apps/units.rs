//! Units of systemd that start apps (`systemd.service(5)`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a unit of ours begins; another one is never overwritten.
pub const MARK: &str = "# Written by maitred startup.";
/// What ending takes beside the workers' time.
const MORE_TIME: Duration = Duration::from_secs(10);

/// Whose units they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The machine's.
    System,
    /// One user's.
    User,
}

impl Whose {
    /// The directory of units; none if this user has no home.
    #[must_use]
    pub fn directory(self) -> Option<PathBuf> {
        match self {
            Whose::System => Some("/etc/systemd/system".into()),
            Whose::User => Some(super::places::of_config()?.join("systemd/user")),
        }
    }

    /// What starts it at boot.
    fn target(self) -> &'static str {
        match self {
            Whose::System => "multi-user.target",
            Whose::User => "default.target",
        }
    }

    /// The words after which `systemctl` means these.
    #[must_use]
    pub fn systemctl(self) -> &'static str {
        match self {
            Whose::System => "systemctl",
            Whose::User => "systemctl --user",
        }
    }
}

/// What a unit runs.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is, for people.
    pub description: String,
    /// The words, the executable first.
    pub command: Vec<String>,
    /// The directory in which they are typed.
    pub directory: PathBuf,
    /// What it is made for: a file, or what is remembered of an app.
    pub of: PathBuf,
    /// How long its workers may take to end.
    pub grace: Duration,
    /// Where programs are looked for, if not where systemd does.
    pub path: Option<String>,
}

/// How the unit of this service begins: another one of the same name is not overwritten.
#[must_use]
pub fn mark(service: &Service) -> String {
    let of = |path: &Path| path.display().to_string().replace(char::is_control, "?");
    format!("{MARK}\n# {}\n", of(&service.of))
}

/// The text of the unit.
///
/// # Errors
/// Says what cannot be written into one.
pub fn text(service: &Service, whose: Whose) -> Result<String, String> {
    let words: Vec<String> = service.command.iter().map(|word| quoted(word)).collect();
    let stop = (service.grace + MORE_TIME).as_secs();
    let mut text = format!("{}[Unit]\nDescription={}\n", mark(service), service.description.replace('%', "%%"));
    if whose == Whose::System {
        text += "Wants=network-online.target\nAfter=network-online.target\n";
    }
    let searched = service.path.iter().map(|path| format!("Environment={}\n", setting(&format!("PATH={path}"))));
    let searched: String = searched.collect();
    let _ = write!(
        text,
        "\n[Service]\nType=notify\nTimeoutStartSec=infinity\nExecStart={}\nExecReload=/bin/kill -HUP $MAINPID\nWorkingDirectory={}\n\
         {searched}Restart=on-failure\nKillMode=mixed\nTimeoutStopSec={stop}\n\n[Install]\nWantedBy={}\n",
        words.join(" "),
        path(&service.directory)?,
        whose.target()
    );
    Ok(text)
}

/// A word of a command line (`systemd.service(5)`, "Command lines"): quoted where it must be, and neither a specifier nor
/// a variable.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with(['-', '@', ':', '+']) || is_option(word) {
        return word.to_owned();
    }
    let mut text = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

fn is_option(word: &str) -> bool {
    word.starts_with('-') && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,+".contains(c))
}

/// A word of `Environment=`, in which `$` means nothing (`systemd.exec(5)`).
fn setting(word: &str) -> String {
    quoted(word).replace("$$", "$")
}

/// A path as the value of a setting, in which specifiers are replaced.
fn path(path: &Path) -> Result<String, String> {
    let text = path.display().to_string();
    if text.contains(char::is_control) || text.ends_with(['\\', ' ']) {
        return Err(format!("{text:?} cannot be a directory of a unit"));
    }
    Ok(text.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_as_they_are_through_systemd() {
        for (word, text) in [
            ("/usr/bin/node", "/usr/bin/node"),
            ("--name=web", "--name=web"),
            ("a b", "\"a b\""),
            ("", "\"\""),
            ("50%", "\"50%%\""),
            ("$HOME", "\"$$HOME\""),
            ("say \"x\\y\"\n", "\"say \\\"x\\\\y\\\"\\n\""),
            ("@x", "\"@x\""),
            ("\u{1}", "\"\\u0001\""),
        ] {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn a_unit_says_what_runs_and_how_long_its_end_may_take() {
        let service = Service {
            description: "web, 100%".to_owned(),
            command: ["/bin/maitred", "up", "-c", "/srv/my app/maitred.toml"].map(str::to_owned).to_vec(),
            directory: "/srv/my app".into(),
            of: "/srv/my app/maitred.toml".into(),
            grace: Duration::from_secs(30),
            path: Some("/opt/100%/$x:/bin".to_owned()),
        };
        let unit = text(&service, Whose::System).unwrap();
        for line in [
            MARK,
            "Description=web, 100%%",
            "Type=notify",
            "ExecStart=/bin/maitred up -c \"/srv/my app/maitred.toml\"",
            "WorkingDirectory=/srv/my app",
            "Environment=\"PATH=/opt/100%%/$x:/bin\"",
            "TimeoutStopSec=40",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|there| there == line), "{line}\n{unit}");
        }
        assert!(text(&service, Whose::User).unwrap().contains("WantedBy=default.target"));
        for bad in ["/a\nExecStartPre=/bin/true", "/a\\", "/a "] {
            assert!(text(&Service { directory: bad.into(), ..service.clone() }, Whose::System).is_err(), "{bad:?}");
        }
    }
}
