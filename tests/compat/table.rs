//! The table of the manual, made of what was run.

use crate::case::Case;
use crate::support::root;
use std::collections::BTreeMap;

const BEGIN: &str = "<!-- made by `cargo test --test compat` -->\n";
const END: &str = "<!-- end -->\n";
const MODES: [&str; 3] = ["handoff", "shared", "kernel"];

/// All cells, in the order of the cases; those that were not run are empty.
#[derive(Debug, Default)]
pub struct Results {
    rows: Vec<(&'static str, &'static str)>,
    cells: BTreeMap<(&'static str, &'static str, &'static str), Option<String>>,
}

impl Results {
    /// Makes room for what is about to be run.
    pub fn expect(&mut self, case: &Case) {
        let row = (case.program, case.way.adapter);
        if !self.rows.contains(&row) {
            self.rows.push(row);
        }
        self.cells.insert((row.0, row.1, case.way.mode), None);
    }

    /// Notes how it went.
    pub fn record(&mut self, case: &Case, outcome: String) {
        self.cells.insert((case.program, case.way.adapter, case.way.mode), Some(outcome));
    }

    fn table(&self) -> String {
        let mut text = format!("| program | adapter | {} |\n|---|---|---|---|---|\n", MODES.join(" | "));
        for (program, adapter) in &self.rows {
            let cell = |mode| match self.cells.get(&(*program, *adapter, mode)) {
                Some(Some(outcome)) => outcome,
                Some(None) | None => "–",
            };
            text += &format!("| {program} | {adapter} | {} |\n", MODES.map(cell).join(" | "));
        }
        text
    }

    /// Whether the manual says what was run, if all was run. With `MAITRED_WRITE_TABLE` set, it does from
    /// then on.
    ///
    /// # Errors
    /// What is to be done about a difference.
    pub fn compare_with_manual(&self) -> Result<(), String> {
        if self.cells.values().any(Option::is_none) {
            println!("not all programs were run: the table in the manual was not compared");
            return Ok(());
        }
        let path = root().join("src/manual/compat.md");
        let manual = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let parts = manual.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
        let Some((before, (present, after))) = parts else {
            return Err("the manual has no place for the table of programs".to_owned());
        };
        let table = self.table();
        if present == table {
            println!("the table in the manual is what was run");
            return Ok(());
        }
        if std::env::var_os("MAITRED_WRITE_TABLE").is_some() {
            return std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))
                .map_err(|error| error.to_string());
        }
        Err(format!("the manual's table is not what was run; write it with MAITRED_WRITE_TABLE=1\n{table}"))
    }
}
