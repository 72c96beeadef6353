//! The files that `maitred bench` writes.

use super::BenchArgs;
use crate::bench::report::{self, Report};
use crate::cli::say;
use std::path::{Path, PathBuf};

/// The files to write.
pub struct Outputs {
    json: Option<PathBuf>,
    csv: Option<PathBuf>,
    html: Option<PathBuf>,
    svg: Option<PathBuf>,
    markdown: Option<PathBuf>,
}

/// In place of a file: standard output, where nothing else is written then.
const STANDARD_OUTPUT: &str = "-";

impl Outputs {
    /// The files that the command line names.
    pub fn of(args: &BenchArgs) -> Outputs {
        Outputs {
            json: args.json.clone(),
            csv: args.csv.clone(),
            html: args.html.clone(),
            svg: args.svg.clone(),
            markdown: args.markdown.clone(),
        }
    }

    /// Whether standard output has the JSON, and so nothing else.
    pub fn to_standard_output(&self) -> bool {
        self.json.as_deref() == Some(Path::new(STANDARD_OUTPUT))
    }

    /// Checks before the measurement, which takes minutes, whether the files can be written.
    pub fn check(&self) -> Result<(), String> {
        let json = self.json.as_ref().filter(|_| !self.to_standard_output());
        for file in [json, self.csv.as_ref(), self.html.as_ref(), self.markdown.as_ref()].into_iter().flatten() {
            let existed = file.exists();
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
            opened.map_err(|error| cannot_write(file, &error))?;
            if !existed {
                let _ = std::fs::remove_file(file);
            }
        }
        match &self.svg {
            Some(dir) => std::fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error)),
            None => Ok(()),
        }
    }

    /// Writes the files.
    pub fn write(&self, report: &Report) -> Result<(), String> {
        let put = |file: &Path, text: String| std::fs::write(file, text).map_err(|error| cannot_write(file, &error));
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(report).map_err(|error| cannot_write(file, &error))? + "\n";
            match self.to_standard_output() {
                true => say::shown_json(&text).map_err(|error| cannot_write(file, &error))?,
                false => put(file, text)?,
            }
        }
        if let Some(file) = &self.markdown {
            put(file, report::markdown::text(report))?;
        }
        if let Some(file) = &self.csv {
            put(file, report::csv::text(report).map_err(|error| cannot_write(file, &error))?)?;
        }
        if let Some(file) = &self.html {
            put(file, report::html::text(report).map_err(|error| cannot_write(file, &error))?)?;
        }
        if let Some(dir) = &self.svg {
            for plot in report::plots::plots(report).map_err(|error| cannot_write(dir, &error))? {
                put(&dir.join(plot.name).with_extension("svg"), plot.svg)?;
            }
        }
        Ok(())
    }
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot write {}: {error}", path.display())
}
