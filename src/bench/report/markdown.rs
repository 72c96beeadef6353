//! The result as Markdown, for a pull request or a wiki.

use super::Report;
use super::figures::{Figures, figures};

/// The whole result.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n\n{}\n\n    {}\n", report.load_line(), report.machine.line(), report.invocation);
    if let Some(why) = &report.ended_early {
        text += &format!("\n**Incomplete**: {why}\n");
    }
    let lists =
        [("Verdict", report.verdicts.clone()), ("Doubts", report.doubts.clone()), ("Invalid", report.invalid())];
    for (title, lines) in lists.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        text += &format!("\n**{title}**\n\n");
        lines.iter().for_each(|line| text += &format!("- {}\n", escaped(line)));
    }
    figures(report).iter().for_each(|figures| text += &table(figures));
    text
}

fn table(figures: &Figures) -> String {
    let columns = figures.columns.iter().map(|column| escaped(column)).collect::<Vec<_>>().join(" | ");
    let rules = " --: |".repeat(figures.columns.len());
    let row = |row: &Vec<String>| {
        format!("| {} |\n", row.iter().map(|cell| escaped(cell.trim_end())).collect::<Vec<_>>().join(" | "))
    };
    let rows: String = figures.rows.iter().map(row).collect();
    format!("\n| {} | {columns} |\n| :-- |{rules}\n{rows}\n{}\n", escaped(figures.title), escaped(figures.note))
}

/// What Markdown would read as a mark becomes text.
fn escaped(text: &str) -> String {
    let mut clean = String::new();
    for c in text.replace('\n', " ").chars() {
        if "|*_`<\\".contains(c) {
            clean.push('\\');
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_as_many_cells_in_each_line_and_marks_are_text() {
        let figures = Figures {
            title: "spread",
            columns: vec!["a|b", "c"],
            rows: vec![vec!["x_y".into(), "1".into(), "2".into()]],
            note: "n",
        };
        assert_eq!(table(&figures), "\n| spread | a\\|b | c |\n| :-- | --: | --: |\n| x\\_y | 1 | 2 |\n\nn\n");
    }
}
