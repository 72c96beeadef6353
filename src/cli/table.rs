//! Tables on a terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, Table};
use std::time::Duration;

/// Columns of words, which read better when they are aligned to the left.
const WORDS: [&str; 6] = ["STATE", "ADAPTER", "LISTENER", "NAME", "MODE", "ADDRESSES"];

/// A table without lines. Columns of words are aligned to the left, those of numbers to the right.
pub fn aligned(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    for (column, title) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        let words = WORDS.contains(title);
        column.set_cell_alignment(if words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

/// Hides columns until the table fits, `spared` in this order.
pub fn fit(table: &mut Table, header: &[&str], spared: &[&str], width: usize) {
    for spared in spared {
        if table.lines().all(|line| line.trim_end().chars().count() <= width) {
            return;
        }
        let index = header.iter().position(|title| title == spared);
        if let Some(column) = index.and_then(|index| table.column_mut(index)) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

/// A length of time, to the second.
pub fn seconds(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}
