//! Words of `run` as a file that says the same.

use super::meaning::{self, Again, command};
use crate::config::file;
use crate::config::layers::{self, ENV, Which};
use crate::config::options::InFile;
use clap::Parser;
use clap::parser::ValueSource;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use toml::{Table, Value};

/// What these words say, and the file that they name, as options of a file. Paths in them are relative to `directory`.
///
/// # Errors
/// Says what cannot stand in a file.
pub fn as_table(words: &[OsString], directory: &Path) -> Result<Table, String> {
    let args = Again::try_parse_from(words).map_err(|error| error.to_string())?.args;
    let mut all = words.to_vec();
    let mut of_file = Vec::new();
    let mut table = Table::new();
    if let Some(file) = meaning::file_of(&args)? {
        let text = file.read()?;
        let path = std::path::absolute(directory.join(&file.path)).map_err(|error| error.to_string())?;
        let which = Which { app: args.app.as_deref(), profile: args.profile.as_deref() };
        let said = file::words(&text, &path, which).map_err(|error| error.to_string())?;
        all = said.options.into_iter().chain(all).collect();
        of_file = said.command;
        let apps = file::apps(&text, &path, which.profile).map_err(|error| error.to_string())?;
        let depends_on = apps.into_iter().find(|app| Some(&app.name) == args.app.as_ref()).map(|app| app.depends_on);
        if let Some(names) = depends_on.filter(|names| !names.is_empty()) {
            table.insert("depends_on".to_owned(), Value::Array(names.into_iter().map(Value::String).collect()));
        }
    }
    // All that is said, and in the order in which it counts.
    let matches = command().try_get_matches_from(&all).map_err(|error| error.to_string())?;
    let args = Again::try_parse_from(&all).map_err(|error| error.to_string())?.args;
    let mut env = Table::new();
    for (option, argument) in meaning::options().into_iter().filter(|(option, _)| option.in_file != InFile::Not) {
        let id = argument.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let raw = matches.get_raw(id).into_iter().flatten();
        let values: Option<Vec<&str>> = raw.map(OsStr::to_str).collect();
        let values = values.ok_or_else(|| format!("--{} is not UTF-8", option.name))?;
        let is_path = option.in_file == InFile::Paths || PATHS.contains(&option.name);
        let scalar = |text: &str| match text.parse::<i64>() {
            _ if is_path => Value::String(directory.join(text).display().to_string()),
            // A name may look like a number.
            Ok(number) if option.name != "name" && number.to_string() == text => Value::Integer(number),
            _ => Value::String(text.to_owned()),
        };
        let value = match (option.in_file, &values[..]) {
            (InFile::Table, pairs) => {
                let pairs = pairs.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                env.extend(pairs.map(|(name, value)| (name.to_owned(), plain(Value::String(value.to_owned())))));
                continue;
            }
            (InFile::Switch, _) => Value::Boolean(true),
            (InFile::Count, _) => Value::Integer(i64::from(matches.get_count(id))),
            (_, [one]) => scalar(one),
            (_, several) => Value::Array(several.iter().map(|one| scalar(one)).collect()),
        };
        table.insert(option.name.to_owned(), plain(value));
    }
    let words = if args.command.is_empty() { of_file } else { args.command };
    let words = words.into_iter().map(|word| word.into_string().map(Value::String));
    let words = words.collect::<Result<_, _>>().map_err(|word| format!("{} is not UTF-8", word.display()))?;
    table.insert("command".to_owned(), plain(Value::Array(words)));
    if !env.is_empty() {
        table.insert(ENV.to_owned(), Value::Table(env));
    }
    Ok(table)
}

/// Options whose values are paths.
const PATHS: [&str; 5] = ["control", "cwd", "log-file", "out-file", "err-file"];

/// A value in which nothing looks like a variable.
fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(layers::plain(&text)),
        Value::Array(values) => Value::Array(values.into_iter().map(plain).collect()),
        other => other,
    }
}
