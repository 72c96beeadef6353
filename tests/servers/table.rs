//! The table in the manual, made of what was run.

use crate::commands::Case;
use crate::support::manual::compare_with_manual;
use std::collections::BTreeMap;

/// How a server came through a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Everybody was answered, and every slot got its exact share.
    Exact,
    /// Everybody was answered; who wakes first serves.
    Served,
    /// Everybody was answered; without `CAP_BPF` slots are drawn at random.
    Drawn,
}

/// Where the table of the servers that every change is tried with begins.
pub const OFTEN: &str = "<!-- made by `cargo test --test servers` -->\n";
/// Where that of the others begins.
pub const NIGHTLY: &str = "<!-- made by `.ci/nightly` -->\n";
const MODES: [&str; 3] = ["handoff", "shared", "kernel"];

/// All cells, in the order of the cases; those that were not run are empty.
#[derive(Debug)]
pub struct Results {
    begin: &'static str,
    rows: Vec<(String, String)>,
    cells: BTreeMap<(String, String, String), Option<Cell>>,
}

impl Results {
    /// For the table that begins there.
    pub fn new(begin: &'static str) -> Results {
        Results { begin, rows: Vec::new(), cells: BTreeMap::new() }
    }

    /// Makes room for what is about to be run.
    pub fn expect(&mut self, case: &Case, mode: &str) {
        let row = (case.server.clone(), case.adapter.clone());
        if !self.rows.contains(&row) {
            self.rows.push(row.clone());
        }
        self.cells.insert((row.0, row.1, mode.to_owned()), None);
    }

    /// Notes how it went.
    pub fn record(&mut self, case: &Case, mode: &str, cell: Cell) {
        self.cells.insert((case.server.clone(), case.adapter.clone(), mode.to_owned()), Some(cell));
    }

    fn table(&self) -> String {
        let mut text = format!("| server | adapter | {} |\n|---|---|---|---|---|\n", MODES.join(" | "));
        for (server, adapter) in &self.rows {
            let cell = |mode: &str| match self.cells.get(&(server.clone(), adapter.clone(), mode.to_owned())) {
                Some(Some(Cell::Exact)) => "exact",
                Some(Some(Cell::Served)) => "yes",
                Some(Some(Cell::Drawn)) => "drawn",
                Some(None) | None => "–",
            };
            text += &format!("| {server} | {adapter} | {} |\n", MODES.map(cell).join(" | "));
        }
        text
    }

    /// Whether the manual says what was run, if all was run with all privileges. With
    /// `MAITRED_WRITE_TABLE` set, it does from then on.
    ///
    /// # Errors
    /// What is to be done about a difference.
    pub fn compare_with_manual(&self) -> Result<(), String> {
        let all = self.cells.values().all(|cell| matches!(cell, Some(Cell::Exact | Cell::Served)));
        if !all {
            println!("not all servers were run, or not with CAP_BPF: the table in the manual was not compared");
            return Ok(());
        }
        compare_with_manual("servers.md", &[(self.begin, self.table())])
    }
}
