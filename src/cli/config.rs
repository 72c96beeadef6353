//! `maitred config`: whether a file is right, what it means, and its schema.

mod schema;
mod show;

use super::USAGE;
use super::apps::up::FileOfApps;
use super::failure::{Failure, ended};
use super::run::meaning::{self, ChosenFile};
use super::say::{self, complain};
use crate::config::file;
use crate::config::layers::AppInFile;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what is wrong with a file, in each of its apps and profiles
    Check(FileArg),
    /// Show what is in force, and where each value comes from; values of variables are not shown
    Show(ShowArgs),
    /// Print the JSON schema of the file, for editors
    Schema,
}

#[derive(Debug, Args)]
struct FileArg {
    /// The file; without it, maitred.toml here or in a directory above
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    file: FileArg,

    /// Only this app
    #[arg(long, value_name = "NAME")]
    app: Option<String>,

    /// Which layer of the file is laid over it
    #[arg(long, value_name = "P")]
    profile: Option<String>,
}

/// Does what is asked.
pub fn main(args: &ConfigArgs) -> ExitCode {
    let done = match &args.what {
        What::Check(file) => check(file),
        What::Show(args) => show::main(args),
        What::Schema => Ok(say::json(&format!("{}\n", schema::text()), ExitCode::SUCCESS)),
    };
    ended(done)
}

impl FileArg {
    fn chosen(&self) -> Result<ChosenFile, Failure> {
        FileOfApps::named(self.file.clone()).chosen()
    }
}

fn check(file: &FileArg) -> Result<ExitCode, Failure> {
    let file = file.chosen()?;
    let text = file.read().map_err(Failure::usage)?;
    let path = file.path.clone();
    let profiles = file::profiles(&text, &path).map_err(Failure::usage)?;
    let mut mistakes: Vec<String> = Vec::new();
    let mut found: Vec<AppInFile> = Vec::new();
    for profile in [None].into_iter().chain(profiles.iter().map(Some)) {
        let profile = profile.map(String::as_str);
        match file::apps(&text, &path, profile) {
            Ok(apps) => found = apps,
            Err(error) => {
                mistakes.push(error.to_string());
                continue;
            }
        }
        let names: Vec<Option<&str>> = match &found[..] {
            [] => vec![None],
            apps => apps.iter().map(|app| Some(app.name.as_str())).collect(),
        };
        for app in names {
            if let Err(failure) = meaning::look_at(&file.words(app, profile), &text) {
                mistakes.push(failure.said);
            }
        }
    }
    // A mistake at the top is one of each app.
    mistakes.sort();
    mistakes.dedup();
    if mistakes.is_empty() {
        let names: Vec<&str> = found.iter().map(|app| app.name.as_str()).collect();
        let apps = if names.is_empty() { "one app".to_owned() } else { format!("apps: {}", names.join(", ")) };
        let profiles = if profiles.is_empty() { String::new() } else { format!("; profiles: {}", profiles.join(", ")) };
        return Ok(say::lines(&format!("{} is right; {apps}{profiles}\n", path.display()), ExitCode::SUCCESS));
    }
    mistakes.iter().for_each(|mistake| complain(mistake));
    Ok(ExitCode::from(USAGE))
}
