//! A chapter as a man page (man(7), with tables for tbl(1)).

use super::blocks::{Block, Style, Text, plain};
use crate::manual::Chapter;
use std::fmt::Write as _;

/// A page of section 7.
#[must_use]
pub fn render(chapter: &Chapter, blocks: &[Block]) -> String {
    let Chapter { name, about, .. } = chapter;
    let version = env!("CARGO_PKG_VERSION");
    // The first line says that tables must be preprocessed.
    let mut page = format!(
        "'\\\" t\n.TH maitred\\-{} 7 \"\" \"maitred {version}\"\n.ad l\n.nh\n.SH NAME\nmaitred\\-{} \\- {}\n",
        escaped(name),
        escaped(name),
        escaped(about)
    );
    for block in blocks {
        match block {
            Block::Heading(1, _) => page += ".SH DESCRIPTION\n",
            Block::Heading(2, text) => drop(writeln!(page, ".SH {}", escaped(&plain(text).to_uppercase()))),
            Block::Heading(_, text) => drop(writeln!(page, ".SS {}", escaped(&plain(text)))),
            Block::Paragraph(text) => drop(writeln!(page, ".PP\n{}", styled(text))),
            Block::Item(text) => drop(writeln!(page, ".IP \\(bu 3\n{}", styled(text))),
            Block::Code(code) => drop(writeln!(page, ".PP\n.nf\n{}\n.fi", escaped(code.trim_end()))),
            Block::Table(rows) => page += &table(rows),
        }
    }
    page
}

fn table(rows: &[Vec<Text>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let format = |letter: &str| vec![letter; columns].join(" ");
    let mut text = format!(".PP\n.TS\nallbox;\n{}\n{}.\n", format("lbx"), format("lx"));
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| format!("T{{\n{}\nT}}", styled(cell))).collect();
        let _ = writeln!(text, "{}", cells.join("\t"));
    }
    text + ".TE\n"
}

fn styled(text: &Text) -> String {
    let span = |style, text: &str| match style {
        Style::Plain => text.to_owned(),
        Style::Code | Style::Bold => format!("\\fB{text}\\fR"),
    };
    let all: String = text.iter().map(|part| span(part.style, &escaped(&part.text))).collect();
    // A line that begins with a dot or a quote is a request.
    if all.starts_with(['.', '\'']) { format!("\\&{all}") } else { all }
}

/// Escapes text so that groff takes it literally.
fn escaped(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::blocks;
    use super::*;

    #[test]
    fn nothing_of_the_text_becomes_a_request() {
        let chapter = Chapter { name: "x", about: "a-b", text: "# X\n\n.so /etc/passwd\n\n`\\fB` **b**\n" };
        let page = render(&chapter, &blocks::of(chapter.text));
        assert!(page.contains("maitred\\-x \\- a\\-b\n"), "{page}");
        assert!(page.contains("\n\\&.so /etc/passwd\n") && page.contains("\\fB\\efB\\fR \\fBb\\fR"), "{page}");
    }
}
