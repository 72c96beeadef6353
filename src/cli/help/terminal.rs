//! A chapter on a terminal.

use super::blocks::{Block, Style, Text, plain};
use comfy_table::{ContentArrangement, Table, presets};
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

/// The columns if the terminal does not report a number.
const WIDTH_USUAL: usize = 80;

/// The columns of the terminal.
#[must_use]
pub fn width() -> usize {
    let table = Table::new();
    table.width().map_or(WIDTH_USUAL, usize::from)
}

/// Lays a chapter out for this many columns. On a terminal, headings and emphasized words are bold.
#[must_use]
pub fn render(blocks: &[Block], width: usize) -> String {
    let styled = io::stdout().is_terminal();
    let mut text = String::new();
    let mut last_item = false;
    for block in blocks {
        let item = matches!(block, Block::Item(_));
        if !(text.is_empty() || item && last_item) {
            text.push('\n');
        }
        last_item = item;
        match block {
            Block::Heading(1, heading) => push(&mut text, &strong(&plain(heading).to_uppercase(), styled)),
            Block::Heading(_, heading) => push(&mut text, &strong(&plain(heading), styled)),
            Block::Paragraph(paragraph) => wrapped(&mut text, paragraph, ["", ""], width, styled),
            Block::Item(item) => wrapped(&mut text, item, ["  • ", "    "], width, styled),
            Block::Code(code) => code.lines().for_each(|line| push(&mut text, &format!("  {line}"))),
            Block::Table(rows) => table(rows, width).lines().for_each(|line| push(&mut text, line)),
        }
    }
    text
}

fn push(text: &mut String, line: &str) {
    let _ = writeln!(text, "{}", line.trim_end());
}

fn strong(text: &str, styled: bool) -> String {
    if styled { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// Breaks text into lines of at most this many columns. A longer word gets a line of its own.
fn wrapped(out: &mut String, text: &Text, [first, then]: [&str; 2], width: usize, styled: bool) {
    let bold: Vec<bool> = text.iter().flat_map(|span| span.text.chars().map(|_| span.style == Style::Bold)).collect();
    let all = plain(text);
    let (mut line, mut columns) = (first.to_owned(), first.chars().count());
    let (mut at, mut empty) = (0, true);
    for word in all.split(' ') {
        let (length, is_bold) = (word.chars().count(), bold.get(at).copied().unwrap_or(false));
        at += length + 1;
        if word.is_empty() {
            continue;
        }
        if !empty && columns + 1 + length > width {
            push(out, &line);
            (line, columns, empty) = (then.to_owned(), then.chars().count(), true);
        }
        if !empty {
            line.push(' ');
            columns += 1;
        }
        line.push_str(&if is_bold { strong(word, styled) } else { word.to_owned() });
        columns += length;
        empty = false;
    }
    push(out, &line);
}

fn table(rows: &[Vec<Text>], width: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    let cells = |row: &Vec<Text>| row.iter().map(plain).collect::<Vec<_>>();
    let mut rows = rows.iter().map(cells);
    if let Some(head) = rows.next() {
        table.set_header(head);
    }
    table.add_rows(rows);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::blocks;
    use super::*;
    use crate::manual::CHAPTERS;

    #[test]
    fn every_chapter_fits_into_eighty_columns() {
        for chapter in CHAPTERS {
            let text = render(&blocks::of(chapter.text), 80);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", chapter.name);
            }
            assert!(text.lines().count() > 10, "{}: {text}", chapter.name);
        }
    }

    #[test]
    fn text_is_wrapped_at_words() {
        let mut out = String::new();
        let text = match &blocks::of("one **two** three four")[0] {
            Block::Paragraph(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        wrapped(&mut out, &text, ["- ", "  "], 10, false);
        assert_eq!(out, "- one two\n  three\n  four\n");
    }
}
