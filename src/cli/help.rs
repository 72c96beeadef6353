//! `maitred help`: a command's options, or a chapter of the manual.

mod blocks;
mod man;
mod terminal;

pub use terminal::width;

use super::{Cli, say};
use crate::manual::{ALERTS, CHAPTERS, Chapter, DASHBOARD};
use clap::{Args, CommandFactory};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The manual is laid out for at most this many columns: longer lines are hard to read.
const WIDTH_MAX: usize = 80;
/// Shows text page by page; `F`: not if it fits on one page, `R`: with colours, `X`: and leaves it on the screen.
const PAGER: (&str, &str) = ("less", "-FRX");

/// Options of `maitred help`.
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A command, or a chapter of the manual; without one, both are listed
    topic: Option<String>,
}

/// Options of `maitred package`.
#[derive(Debug, Args)]
pub struct PackageArgs {
    /// Directory that gets man1, man7, completions and monitoring
    directory: PathBuf,
}

/// Shows the topic.
pub fn main(args: &HelpArgs) -> ExitCode {
    let mut command = Cli::command().max_term_width(WIDTH_MAX);
    let Some(topic) = args.topic.as_deref() else {
        let text = format!("{}\n{}", command.render_long_help(), list());
        return paged(&text);
    };
    if let Some(chapter) = CHAPTERS.iter().find(|chapter| chapter.name == topic) {
        let width = terminal::width().min(WIDTH_MAX);
        return paged(&terminal::render(&blocks::of(chapter.text), width));
    }
    command.build();
    match command.find_subcommand_mut(topic) {
        Some(found) => paged(&found.render_long_help().to_string()),
        None => {
            let names = CHAPTERS.iter().map(|chapter| chapter.name).collect::<Vec<_>>().join(", ");
            say::complain(&format_args!("there is no command and no chapter {topic}; the chapters are {names}"));
            ExitCode::from(super::USAGE)
        }
    }
}

fn list() -> String {
    let longest = CHAPTERS.iter().map(|chapter| chapter.name.len()).max().unwrap_or(0);
    let mut text = "Chapters of the manual (maitred help TOPIC):\n".to_owned();
    for Chapter { name, about, .. } in CHAPTERS {
        let _ = writeln!(text, "  {name:longest$}  {about}");
    }
    text
}

/// Shows text page by page on a terminal, and at once elsewhere.
fn paged(text: &str) -> ExitCode {
    if !io::stdout().is_terminal() {
        return say::lines(text, ExitCode::SUCCESS);
    }
    let asked = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let words = asked.as_deref().and_then(shlex::split).unwrap_or_else(|| vec![PAGER.0.to_owned(), PAGER.1.to_owned()]);
    let started = match words.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).stdin(Stdio::piped()).spawn(),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    let Ok(mut pager) = started else { return say::lines(text, ExitCode::SUCCESS) };
    if let Some(mut page) = pager.stdin.take() {
        // The write fails if the reader closes the pager early.
        let _ = page.write_all(text.as_bytes());
    }
    let _ = pager.wait();
    ExitCode::SUCCESS
}

/// Writes man pages and shell completions, for packagers.
pub fn package(args: &PackageArgs) -> ExitCode {
    match write_all(&args.directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::complain(&format_args!("cannot write to {}: {error}", args.directory.display()));
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path) -> io::Result<()> {
    let (commands, chapters, completions) =
        (directory.join("man1"), directory.join("man7"), directory.join("completions"));
    let monitoring = directory.join("monitoring");
    for directory in [&commands, &chapters, &completions, &monitoring] {
        std::fs::create_dir_all(directory)?;
    }
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &commands)?;
    for chapter in CHAPTERS {
        let page = man::render(chapter, &blocks::of(chapter.text));
        std::fs::write(chapters.join(format!("maitred-{}.7", chapter.name)), page)?;
    }
    for (name, text) in [("grafana.json", DASHBOARD), ("alerts.yml", ALERTS)] {
        std::fs::write(monitoring.join(name), text)?;
    }
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "maitred", &completions)?;
    }
    Ok(())
}
