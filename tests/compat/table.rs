//! The tables of the manual, made of what was run.

use crate::case::Case;
use crate::starts::WAYS;
use crate::support::root;
use std::collections::BTreeMap;

const END: &str = "<!-- end -->\n";
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

    /// The manual with this table in its place.
    fn put_into(&self, manual: &str) -> Result<String, String> {
        let parts = manual.split_once(self.begin).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
        let (before, (_, after)) = parts.ok_or_else(|| format!("the manual has no place for {}", self.begin))?;
        Ok(format!("{before}{}{}{END}{after}", self.begin, self.text()))
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
        let path = root().join("src/manual/compat.md");
        let manual = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut made = manual.clone();
        for table in [&self.programs, &self.starts] {
            if table.was_run() {
                made = table.put_into(&made)?;
            } else {
                println!("not all programs were run: a table in the manual was not compared");
            }
        }
        if made == manual {
            return Ok(());
        }
        if std::env::var_os("MAITRED_WRITE_TABLE").is_some() {
            return std::fs::write(&path, made).map_err(|error| error.to_string());
        }
        Err(format!("the manual's tables are not what was run; write them with MAITRED_WRITE_TABLE=1\n{made}"))
    }
}
