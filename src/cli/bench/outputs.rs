//! The files that `maitred bench` writes.

use super::BenchArgs;
use crate::bench::report::{self, Report};
use std::path::{Path, PathBuf};

/// The files to write.
pub struct Outputs {
    json: Option<PathBuf>,
    csv: Option<PathBuf>,
    html: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Outputs {
    /// The files that the command line names.
    pub fn of(args: &BenchArgs) -> Outputs {
        Outputs { json: args.json.clone(), csv: args.csv.clone(), html: args.html.clone(), svg: args.svg.clone() }
    }

    /// Checks before the measurement, which takes minutes, whether the files can be written.
    pub fn check(&self) -> Result<(), String> {
        for file in [&self.json, &self.csv, &self.html].into_iter().flatten() {
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
            put(file, serde_json::to_string_pretty(report).map_err(|error| cannot_write(file, &error))? + "\n")?;
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
