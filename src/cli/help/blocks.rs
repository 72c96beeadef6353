//! A chapter's Markdown as blocks for the layout.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Text in one style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The style.
    pub style: Style,
    /// The characters.
    pub text: String,
}

/// The style of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Normal.
    Plain,
    /// Something to type, or a name.
    Code,
    /// Emphasized.
    Bold,
}

/// Text in several styles.
pub type Text = Vec<Span>;

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A heading; level 1 is the chapter's title.
    Heading(u8, Text),
    /// A paragraph.
    Paragraph(Text),
    /// An item of a list.
    Item(Text),
    /// Lines that are shown unchanged.
    Code(String),
    /// Cells by row; the first row is the header.
    Table(Vec<Vec<Text>>),
}

/// The text without its styles.
#[must_use]
pub fn plain(text: &Text) -> String {
    text.iter().map(|span| &*span.text).collect()
}

/// The blocks of a chapter. Images are left out, and links are reduced to their text.
#[must_use]
pub fn of(markdown: &str) -> Vec<Block> {
    let mut reader = Reader::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        reader.read(event);
    }
    reader.blocks
}

#[derive(Default)]
struct Reader {
    blocks: Vec<Block>,
    text: Text,
    rows: Vec<Vec<Text>>,
    code: Option<String>,
    items: u32,
    bold: u32,
    pictures: u32,
}

impl Reader {
    fn read(&mut self, event: Event<'_>) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => self.code = Some(String::new()),
            Event::Start(Tag::Strong) => self.bold += 1,
            Event::Start(Tag::Image { .. }) => self.pictures += 1,
            Event::Start(Tag::Item) => {
                self.end_item();
                self.items += 1;
            }
            Event::Start(Tag::TableHead | Tag::TableRow) => self.rows.push(Vec::new()),
            Event::End(TagEnd::Heading(level)) => {
                let text = std::mem::take(&mut self.text);
                self.blocks.push(Block::Heading(level as u8, text));
            }
            Event::End(TagEnd::Paragraph) if self.items == 0 => {
                let text = std::mem::take(&mut self.text);
                if !text.is_empty() {
                    self.blocks.push(Block::Paragraph(text));
                }
            }
            Event::End(TagEnd::Item) => {
                self.end_item();
                self.items -= 1;
            }
            Event::End(TagEnd::Strong) => self.bold -= 1,
            Event::End(TagEnd::Image) => self.pictures -= 1,
            Event::End(TagEnd::CodeBlock) => {
                self.end_item();
                self.blocks.extend(self.code.take().map(Block::Code));
            }
            Event::End(TagEnd::TableCell) => {
                let cell = std::mem::take(&mut self.text);
                self.rows.last_mut().into_iter().for_each(|row| row.push(cell.clone()));
            }
            Event::End(TagEnd::Table) => self.blocks.push(Block::Table(std::mem::take(&mut self.rows))),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.add(if self.bold > 0 { Style::Bold } else { Style::Plain }, &text),
            },
            Event::Code(text) => self.add(Style::Code, &text),
            Event::SoftBreak | Event::HardBreak => self.add(Style::Plain, " "),
            _ => {}
        }
    }

    fn add(&mut self, style: Style, text: &str) {
        if self.pictures == 0 {
            self.text.push(Span { style, text: text.to_owned() });
        }
    }

    fn end_item(&mut self) {
        if self.items > 0 && !self.text.is_empty() {
            self.blocks.push(Block::Item(std::mem::take(&mut self.text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chapter_becomes_blocks() {
        let text = "# A *b*\n\nOne `two`\nthree ![x](y) [link](z).\n\n- **first**\n- second\n\n```text\n a\n```\n\n| h | i |\n|---|---|\n| 1 | `a\\|b` |\n";
        let blocks = of(text);
        let span = |style, text: &str| Span { style, text: text.to_owned() };
        assert_eq!(blocks.len(), 6, "{blocks:#?}");
        assert!(matches!(&blocks[0], Block::Heading(1, text) if plain(text) == "A b"));
        assert!(matches!(&blocks[1], Block::Paragraph(text) if plain(text) == "One two three  link."));
        assert_eq!(blocks[2], Block::Item(vec![span(Style::Bold, "first")]));
        assert_eq!(blocks[4], Block::Code(" a\n".to_owned()));
        let cell = |text: &str| vec![span(Style::Plain, text)];
        let code = vec![span(Style::Code, "a|b")];
        assert_eq!(blocks[5], Block::Table(vec![vec![cell("h"), cell("i")], vec![cell("1"), code]]));
    }
}
