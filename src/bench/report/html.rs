//! The result as one self-contained page.

use super::figures::{Figures, figures};
use super::plots::{Plot, plots};
use super::{Machine, Report};
use askama::Template;
use std::error::Error;

#[derive(Template)]
#[template(path = "page.html", config = "src/bench/report/askama.toml")]
struct Page<'a> {
    report: &'a Report,
    machine: &'a Machine,
    load: String,
    invalid: Vec<String>,
    figures: Vec<Figures>,
    plots: Vec<Plot>,
}

/// The page.
///
/// # Errors
/// Those of drawing and of filling in the template.
pub fn text(report: &Report) -> Result<String, Box<dyn Error>> {
    let (load, invalid, figures, plots) = (report.load_line(), report.invalid(), figures(report), plots(report)?);
    Ok(Page { report, machine: &report.machine, load, invalid, figures, plots }.render()?)
}
