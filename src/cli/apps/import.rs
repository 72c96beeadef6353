//! `maitred import`: files of other managers as ours.

use crate::apps::import::import;
use crate::cli::FAILED;
use crate::cli::say::{self, complain};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// An ecosystem file of PM2 (.json, .yaml, .js, which node executes), a Procfile, or a unit of systemd (.service)
    file: PathBuf,
}

/// Prints the file, with what could not be carried over at its end.
pub fn main(args: &ImportArgs) -> ExitCode {
    match import(&args.file) {
        Ok(imported) => {
            let code = say::lines(&imported.text(), ExitCode::SUCCESS);
            if !imported.left.is_empty() {
                let left = imported.left.len();
                complain(&format_args!("not all is carried over: {left} notes at the end of the output"));
            }
            code
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}
