//! The result for a terminal.

use super::Report;
use super::figures::{Figures, figures};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// The whole result as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", report.load_line(), report.machine.line());
    if let Some(why) = &report.ended_early {
        text += &format!("\nINCOMPLETE: {why}; this is what was measured until then\n");
    }
    let tables = figures(report);
    tables.iter().for_each(|figures| text += &format!("\n{}\n", table(figures)));
    if !tables.is_empty() {
        text += "\n";
        tables.iter().for_each(|figures| text += &format!("{}: {}\n", figures.title, figures.note));
    }
    let invalid = report.invalid();
    for (title, lines) in
        [("verdict:", &report.verdicts), ("doubts:", &report.doubts), ("INVALID, not counted above:", &invalid)]
    {
        if !lines.is_empty() {
            text += &format!("\n{title}\n");
            lines.iter().for_each(|line| text += &format!("  - {line}\n"));
        }
    }
    text
}

/// A table without lines: the first column is aligned to the left, numbers to the right.
fn table(figures: &Figures) -> Table {
    let mut table = Table::new();
    let header = std::iter::once(figures.title.to_uppercase()).chain(figures.columns.iter().map(|c| (*c).to_owned()));
    table.load_style(NOTHING).set_header(header.collect::<Vec<_>>());
    table.add_rows(figures.rows.iter().cloned());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_cell_alignment(if index == 0 { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}
