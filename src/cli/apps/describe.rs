//! `maitred describe`: all about one app. Of its environment only the names are shown.

use crate::apps::state::{self, App, Wanted};
use crate::cli::say::{self, complain};
use crate::cli::status;
use crate::control;
use crate::control::client::{self, ClientError};
use crate::logs::Log;
use clap::Args;
use std::fmt::Write;
use std::process::ExitCode;

/// The option whose values are secrets.
const ENV: &str = "--env";

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Name of the app
    name: String,
}

/// Prints what is remembered of an app, and its status if it runs.
pub fn main(args: &DescribeArgs) -> ExitCode {
    let name = &args.name;
    let app = match state::app(name) {
        Ok(app) => app,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let socket = app.as_ref().map_or_else(|| control::find_socket(name), |app| app.control.clone());
    let status = client::status(name, &socket);
    let mut text = app.as_ref().map(remembered).unwrap_or_default();
    match (&app, status) {
        (app, Ok(status)) => {
            if app.as_ref().is_some_and(|app| !app.runs()) {
                text += "\nanother maitred has this name now, one of maitred up say:\n";
            }
            text += &format!("\n{}", status::table(&status, None));
        }
        (Some(app), Err(ClientError::NotRunning { .. })) => {
            let state = match (app.process(), app.wanted) {
                (Some(pid), _) => format!("silent: process {pid} runs, but its control socket is gone"),
                (None, Wanted::Stopped) => "stopped".to_owned(),
                (None, Wanted::Running) => "failed: it should run and does not".to_owned(),
            };
            let _ = writeln!(text, "state      {state}");
        }
        (_, Err(error)) => {
            let _ = say::lines(&text, ExitCode::SUCCESS);
            complain(&error);
            return ExitCode::FAILURE;
        }
    }
    say::lines(text.trim_start(), ExitCode::SUCCESS)
}

fn remembered(app: &App) -> String {
    let shown = without_values(&app.words);
    let command = shlex::try_join(shown.iter().map(String::as_str)).unwrap_or_else(|_| shown.join(" "));
    let mut text = format!("name       {}\nstarted as {command}\ndirectory  {}\n", app.name, app.directory.display());
    for log in Log::ALL {
        let _ = writeln!(text, "{:10} {}", format!("{} log", log.name()), log.of(app).display());
    }
    text
}

/// The words without the values of variables.
fn without_values(words: &[String]) -> Vec<String> {
    let mut is_value = false;
    let hide = |pair: &str| pair.split_once('=').map_or_else(|| pair.to_owned(), |(name, _)| format!("{name}=..."));
    let mut ended = false;
    let word = |word: &String| {
        ended |= word == "--";
        let shown = match word.strip_prefix("--env=") {
            Some(pair) if !ended => format!("{ENV}={}", hide(pair)),
            _ if is_value && !ended => hide(word),
            _ => word.clone(),
        };
        is_value = word == ENV;
        shown
    };
    words.iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn no_value_of_a_variable_is_shown() {
        let words = ["--env", "TOKEN=a=b", "--env=KEY=c", "-w", "2", "--", "env", "--env=x=y"].map(str::to_owned);
        let shown = ["--env", "TOKEN=...", "--env=KEY=...", "-w", "2", "--", "env", "--env=x=y"];
        assert_eq!(without_values(&words), shown);
    }
}
