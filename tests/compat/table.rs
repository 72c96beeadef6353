//! The tables of the manual, made of what was run.

use crate::case::Case;
use crate::starts::WAYS;
use crate::support::manual::compare_with_manual;
use std::collections::BTreeMap;

const MODES: [&str; 3] = ["handoff", "shared", "kernel"];

/// One table, with a row for each program and adapter.
#[derive(Debug)]
struct Table {
    /// The line of the manual after which it stands.
    begin: &'static str,
    columns: &'static [&'static str],
    /// In the order of the cases.
    rows: Vec<(&'static str, &'static str)>,
    /// What came out in each mode, by row and column; what was not run is empty.
    cells: BTreeMap<(&'static str, &'static str, &'static str), BTreeMap<&'static str, Option<String>>>,
}

impl Table {
    fn new(begin: &'static str, columns: &'static [&'static str]) -> Table {
        Table { begin, columns, rows: Vec::new(), cells: BTreeMap::new() }
    }

    fn set(&mut self, case: &Case, outcome: Option<String>) {
        let (program, adapter, mode) = (case.program, case.way.adapter, case.way.mode);
        if !self.rows.contains(&(program, adapter)) {
            self.rows.push((program, adapter));
        }
        let column = case.start.unwrap_or(mode);
        self.cells.entry((program, adapter, column)).or_default().insert(mode, outcome);
    }

    fn was_run(&self) -> bool {
        self.cells.values().flat_map(BTreeMap::values).all(Option::is_some)
    }

    fn cell(&self, program: &'static str, adapter: &'static str, column: &'static str) -> String {
        let Some(outcomes) = self.cells.get(&(program, adapter, column)) else { return "–".to_owned() };
        let outcome = |outcome: &Option<String>| outcome.clone().unwrap_or_default();
        let mut all: Vec<_> = outcomes.values().map(outcome).collect();
        all.dedup();
        match &all[..] {
            [one] => one.clone(),
            _ => {
                outcomes.iter().map(|(mode, said)| format!("{mode}: {}", outcome(said))).collect::<Vec<_>>().join("; ")
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!("| program | adapter | {} |\n", self.columns.join(" | "));
        text += &format!("|{}\n", "---|".repeat(self.columns.len() + 2));
        for (program, adapter) in &self.rows {
            let cells: Vec<_> = self.columns.iter().map(|column| self.cell(program, adapter, column)).collect();
            text += &format!("| {program} | {adapter} | {} |\n", cells.join(" | "));
        }
        text
    }
}

/// All that is to be run, and what came out.
#[derive(Debug)]
pub struct Results {
    programs: Table,
    starts: Table,
}

impl Default for Results {
    fn default() -> Results {
        Results {
            programs: Table::new("<!-- made by `cargo test --test compat` -->\n", &MODES),
            starts: Table::new("<!-- made by `cargo test --test compat`: ways of starting -->\n", &WAYS),
        }
    }
}

impl Results {
    fn table_of(&mut self, case: &Case) -> &mut Table {
        if case.start.is_some() { &mut self.starts } else { &mut self.programs }
    }

    /// Makes room for what is about to be run.
    pub fn expect(&mut self, case: &Case) {
        self.table_of(case).set(case, None);
    }

    /// Notes how it went.
    pub fn record(&mut self, case: &Case, outcome: String) {
        self.table_of(case).set(case, Some(outcome));
    }

    /// Whether the manual says what was run, as far as all of a table was run. With `MAITRED_WRITE_TABLE` set, it does
    /// from then on.
    ///
    /// # Errors
    /// What is to be done about a difference.
    pub fn compare_with_manual(&self) -> Result<(), String> {
        let (run, rest): (Vec<_>, Vec<_>) =
            [&self.programs, &self.starts].into_iter().partition(|table| table.was_run());
        for table in rest {
            println!("not all programs were run: not compared with the manual: {}", table.begin.trim());
        }
        compare_with_manual("compat.md", &run.into_iter().map(|table| (table.begin, table.text())).collect::<Vec<_>>())
    }
}
