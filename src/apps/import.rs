//! Files of other managers as ours: what they say is carried over where there is a word for it, and the rest is named.

mod pm2;
mod procfile;
mod unit;

use crate::config::file::{self, FileError};
use crate::config::layers::plain;
use crate::config::name::{ALL, LENGTH_MAX, clean};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toml::{Table, Value};

/// How much of what node prints is read.
const PRINTED_MAX: u64 = 4 << 20;
/// Prints what a file of JavaScript exports, as JSON, and waits for nothing that it began.
const PRINT: &str = "import(require('node:url').pathToFileURL(process.argv[1])).then(file => { \
     require('node:fs').writeSync(1, process.argv[2] + JSON.stringify(file.default ?? file)); process.exit(0) })";
/// What comes before that: the file itself may print something.
const BEFORE: &str = "\n--maitred-import--\n";
/// How long a file may take to be printed.
const PRINT_TIMEOUT: &str = "30";

/// What a file of another manager means here.
#[derive(Debug, Default)]
pub struct Imported {
    /// The options of each app.
    pub apps: BTreeMap<String, Table>,
    /// Of each profile, the options that it lays over each app.
    pub profiles: BTreeMap<String, BTreeMap<String, Table>>,
    /// What could not be carried over.
    pub left: Vec<String>,
}

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// It is not what its name says.
    #[error("{}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its name says nothing.
    #[error(
        "{} is of no kind that is known: an ecosystem file of PM2 (.json, .yaml, .yml, .js, .cjs, .mjs), a Procfile, or a \
         unit of systemd (.service)", .0.display()
    )]
    Kind(PathBuf),
}

/// Reads a file; its name says of which kind it is. A file of JavaScript is executed, as PM2 does.
///
/// # Errors
/// [`ImportError`].
pub fn import(path: &Path) -> Result<Imported, ImportError> {
    let form = |why: String| ImportError::Form { path: path.to_owned(), why };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let text = file::read(path)?;
    let of_json = |text: &str| serde_json::from_str(text).map_err(|error| form(error.to_string()));
    // What follows the first line shows the place again.
    let first = |error: serde_saphyr::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let imported = match &*ending {
        "json" => pm2::ecosystem(&of_json(&text)?),
        "yaml" | "yml" => pm2::ecosystem(&serde_saphyr::from_str(&text).map_err(|error| form(first(error)))?),
        "js" | "cjs" | "mjs" => pm2::ecosystem(&of_json(&printed(path).map_err(form)?)?),
        "service" => unit::service(&path.file_stem().unwrap_or_default().to_string_lossy(), &text),
        _ if name.starts_with("Procfile") => procfile::procfile(&text),
        _ => return Err(ImportError::Kind(path.to_owned())),
    };
    imported.map_err(form)
}

fn printed(path: &Path) -> Result<String, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    // timeout(1) ends what does not end; what prints without end is not read to its end.
    let mut node = Command::new("timeout");
    node.args(["-k", "1", PRINT_TIMEOUT, "node", "-e", PRINT]).arg(&path).arg(BEFORE).stdin(Stdio::null());
    node.stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: io::Error| format!("it has to be printed by node, which cannot be run: {error}");
    let mut node = node.spawn().map_err(failed)?;
    let (mut out, mut said) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (node.stdout.take(), node.stderr.take());
    std::thread::scope(|scope| {
        use std::io::Read;
        // A broken file is an error of its own.
        scope.spawn(|| stderr.map(|stderr| stderr.take(PRINTED_MAX).read_to_end(&mut said)));
        let _ = stdout.map(|stdout| stdout.take(PRINTED_MAX).read_to_end(&mut out));
    });
    let status = node.wait().map_err(failed)?;
    let out = String::from_utf8(out).map_err(|error| error.to_string())?;
    match (status.success(), out.split_once(BEFORE)) {
        (true, Some((_, text))) => Ok(text.to_owned()),
        _ => {
            let said = String::from_utf8_lossy(&said);
            let because = said.lines().find(|line| line.contains("Error"));
            let because = because.map_or_else(|| format!("it ended with {status}"), str::to_owned);
            Err(format!("node cannot print it: {because}"))
        }
    }
}

impl Imported {
    /// The file, as ours.
    #[must_use]
    pub fn text(&self) -> String {
        let of_apps = |apps: &BTreeMap<String, Table>| -> Table {
            apps.iter().map(|(name, table)| (name.clone(), Value::Table(table.clone()))).collect()
        };
        let mut file = Table::new();
        file.insert("app".to_owned(), Value::Table(of_apps(&self.apps)));
        if !self.profiles.is_empty() {
            let profile = |apps| Value::Table(Table::from_iter([("app".to_owned(), Value::Table(of_apps(apps)))]));
            let profiles = self.profiles.iter().map(|(name, apps)| (name.clone(), profile(apps)));
            file.insert("profile".to_owned(), Value::Table(profiles.collect()));
        }
        let mut text = file.to_string();
        if !self.left.is_empty() {
            text += "\n# Not carried over:\n";
            text.extend(self.left.iter().map(|left| format!("# - {}\n", left.replace('\n', " "))));
        }
        text
    }

    fn leave(&mut self, what: impl Into<String>) {
        self.left.push(what.into());
    }
}

/// A name that a master can have.
fn name(text: &str) -> String {
    let clean: String = clean(text).chars().take(LENGTH_MAX).collect();
    if clean.is_empty() || clean == ALL { "app".to_owned() } else { clean }
}

/// Words as a list of TOML.
fn list(words: impl IntoIterator<Item = String>) -> Value {
    Value::Array(words.into_iter().map(|word| Value::String(plain(&word))).collect())
}
