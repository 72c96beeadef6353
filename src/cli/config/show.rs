//! `maitred config show`: each option of an app, its value, and where that comes from, as a file that could be read again.

use super::ShowArgs;
use crate::cli::failure::Failure;
use crate::cli::run::meaning;
use crate::cli::say;
use crate::config::file::{self, Setting};
use crate::config::layers::{self, Which};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use toml::Value;

/// Shown in place of what may be a secret.
const HIDDEN: &str = "...";

/// Prints it.
pub fn main(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let file = args.file.chosen()?;
    let text = file.read().map_err(Failure::usage)?;
    let path = file.path.clone();
    let profile = args.profile.as_deref();
    let apps = file::apps(&text, &path, profile).map_err(Failure::usage)?;
    let chosen = |name: &str| args.app.as_ref().is_none_or(|only| only == name);
    let mut names: Vec<Option<&str>> =
        apps.iter().map(|app| app.name.as_str()).filter(|name| chosen(name)).map(Some).collect();
    if names.is_empty() {
        // The one that has no name, or the error of one that is not there.
        names.push(args.app.as_deref());
    }
    let mut shown = format!("# {}\n", path.display());
    for app in names {
        // What is not allowed is an error here, too.
        meaning::look_at(&file.words(app, profile), &text)?;
        one(&mut shown, &text, &path, Which { app, profile })?;
    }
    Ok(say::lines(&shown, ExitCode::SUCCESS))
}

fn one(shown: &mut String, text: &str, path: &Path, which: Which<'_>) -> Result<(), Failure> {
    let settings = file::settings(text, path, which).map_err(Failure::usage)?;
    let (variables, others): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| layers::variable(&setting.key).is_some());
    if let Some(app) = which.app {
        let _ = writeln!(shown, "\n[app.{}]", key(app));
    }
    for setting in &others {
        let _ = writeln!(shown, "{} = {}  # {}", setting.key, setting.written, place(setting));
    }
    for (option, argument) in meaning::options() {
        if others.iter().any(|setting| setting.key == option.name) {
            continue;
        }
        let from_environment = argument.get_env().and_then(|name| Some((name, std::env::var(name).ok()?)));
        if let Some((name, value)) = from_environment {
            let _ = writeln!(shown, "{} = {}  # the variable {}", option.name, scalar(&value), name.display());
        } else if let Some(value) = argument.get_default_values().first() {
            let _ = writeln!(shown, "{} = {}  # default", option.name, scalar(&value.to_string_lossy()));
        }
    }
    if !variables.is_empty() {
        let table = which.app.map_or_else(|| layers::ENV.to_owned(), |app| format!("app.{}.{}", key(app), layers::ENV));
        let _ = writeln!(shown, "\n[{table}]");
        for setting in variables {
            let name = layers::variable(&setting.key).unwrap_or_default();
            let _ = writeln!(shown, "{} = \"{HIDDEN}\"  # {}", key(name), place(setting));
        }
    }
    Ok(())
}

fn place(setting: &Setting) -> String {
    match &setting.place {
        Some(place) => format!("{place}, line {}", setting.line),
        None => format!("line {}", setting.line),
    }
}

/// A value as typed, as it would stand in a file.
fn scalar(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) if ["true", "false"].contains(&text) => (text == "true").into(),
        Err(_) => text.into(),
    }
}

/// A name as a key of TOML.
fn key(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if plain { name.to_owned() } else { Value::from(name).to_string() }
}
