//! A page of documentation as what can be checked in it: links, anchors, and code.

use std::collections::{BTreeMap, BTreeSet};

/// What a page holds.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Targets of links, as they stand.
    pub(crate) links: Vec<Piece>,
    /// The names of its headings, as GitHub makes them.
    pub(crate) anchors: BTreeSet<String>,
    /// What stands between backticks in prose.
    pub(crate) spans: Vec<Piece>,
    /// Blocks of code.
    pub(crate) blocks: Vec<Block>,
}

/// A part of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The line that it begins on, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// Empty where the page does not say.
    pub(crate) language: String,
    pub(crate) lines: Vec<Piece>,
}

impl Page {
    /// Reads a page.
    pub(crate) fn of(text: &str) -> Self {
        let mut page = Self::default();
        let mut headings = BTreeMap::new();
        let mut paragraph = Piece {
            line: 1,
            text: String::new(),
        };
        let mut fence: Option<(String, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim_start();
            if let Some((mark, mut block)) = fence.take() {
                if trimmed.starts_with(&mark) {
                    page.blocks.push(block);
                } else {
                    block.lines.push(Piece {
                        line: index + 1,
                        text: line.to_owned(),
                    });
                    fence = Some((mark, block));
                }
                continue;
            }
            let opens = ["```", "~~~"]
                .into_iter()
                .find(|mark| trimmed.starts_with(mark));
            let ends = opens.is_some() || trimmed.is_empty() || trimmed.starts_with('#');
            if ends {
                page.take_prose(&paragraph);
                paragraph.text.clear();
            }
            if let Some(mark) = opens {
                let language = trimmed.trim_start_matches(['`', '~']).trim();
                let block = Block {
                    language: language.to_owned(),
                    lines: Vec::new(),
                };
                fence = Some((mark.to_owned(), block));
                continue;
            }
            if trimmed.starts_with('#') {
                page.take_heading(trimmed.trim_start_matches('#').trim(), &mut headings);
            }
            // An indented block; its lines are blocks of their own here.
            if paragraph.text.is_empty() && line.starts_with("    ") {
                page.blocks.push(Block {
                    language: String::new(),
                    lines: vec![Piece {
                        line: index + 1,
                        text: trimmed.to_owned(),
                    }],
                });
                continue;
            }
            if paragraph.text.is_empty() {
                paragraph.line = index + 1;
            }
            paragraph.text.push_str(line);
            paragraph.text.push('\n');
        }
        page.take_prose(&paragraph);
        page
    }

    fn take_heading(&mut self, text: &str, seen: &mut BTreeMap<String, usize>) {
        let name = anchor(text);
        let count = seen.entry(name.clone()).or_default();
        self.anchors.insert(match *count {
            0 => name,
            count => format!("{name}-{count}"),
        });
        *count += 1;
    }

    /// Takes the spans of code out of a paragraph, and then the links.
    fn take_prose(&mut self, paragraph: &Piece) {
        let mut prose = String::new();
        let mut rest = paragraph.text.as_str();
        let mut line = paragraph.line;
        while let Some(at) = rest.find('`') {
            let ticks = rest[at..].len() - rest[at..].trim_start_matches('`').len();
            let (before, after) = (&rest[..at], &rest[at + ticks..]);
            prose.push_str(before);
            line += before.matches('\n').count();
            match after.find(&rest[at..at + ticks]) {
                Some(end) => {
                    let text = after[..end]
                        .split_whitespace()
                        .collect::<Vec<_>>()
                        .join(" ");
                    self.spans.push(Piece { line, text });
                    line += after[..end].matches('\n').count();
                    // The lines stay countable.
                    prose.extend(after[..end].chars().filter(|c| *c == '\n'));
                    rest = &after[end + ticks..];
                }
                None => rest = after,
            }
        }
        prose.push_str(rest);
        self.take_links(&prose, paragraph.line);
    }

    fn take_links(&mut self, prose: &str, first_line: usize) {
        for (at, _) in prose.match_indices("](") {
            let target = prose[at + 2..].split([')', ' ', '\n']).next();
            self.links.push(Piece {
                line: first_line + prose[..at].matches('\n').count(),
                text: target.unwrap_or_default().to_owned(),
            });
        }
        for (at, _) in prose.match_indices("]: ") {
            let definition = prose[..at]
                .rsplit('\n')
                .next()
                .is_some_and(|line| line.starts_with('['));
            if definition {
                let target = prose[at + 3..].split_whitespace().next();
                self.links.push(Piece {
                    line: first_line + prose[..at].matches('\n').count(),
                    text: target.unwrap_or_default().to_owned(),
                });
            }
        }
        for (at, _) in prose.match_indices("<a id=\"") {
            let name = prose[at + 7..].split('"').next();
            self.anchors.extend(name.map(str::to_owned));
        }
    }
}

/// The name that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    // Of a link, only its text is shown.
    let mut shown = String::new();
    let mut rest = heading;
    while let Some(at) = rest.find("](") {
        shown.push_str(&rest[..at]);
        rest = rest[at..].split_once(')').map_or("", |(_, after)| after);
    }
    shown.push_str(rest);
    shown
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .flat_map(char::to_lowercase)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(line: usize, text: &str) -> Piece {
        Piece {
            line,
            text: text.to_owned(),
        }
    }

    #[test]
    fn code_is_no_prose_and_prose_is_no_code() {
        let page = Page::of(
            "# One `two`, three: [4](x)\n\nsay `a\nb` and [c](d.md#e) and ``f ` g``\n[h]: i.md\n\
             ```sh\n[no](link) `no span`\n```\n## One two three 4\n",
        );
        let spans = [piece(1, "two"), piece(3, "a b"), piece(4, "f ` g")];
        assert_eq!(page.spans, spans);
        let links = [piece(1, "x"), piece(4, "d.md#e"), piece(5, "i.md")];
        assert_eq!(page.links, links);
        assert_eq!(page.blocks.len(), 1);
        assert_eq!(page.blocks[0].language, "sh");
        assert_eq!(page.blocks[0].lines, [piece(7, "[no](link) `no span`")]);
        let anchors: Vec<&str> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["one-two-three-4", "one-two-three-4-1"]);
    }

    #[test]
    fn a_backtick_that_nothing_closes_is_a_character() {
        let page = Page::of("a ` b\n\n`c` d");
        assert_eq!(page.spans, [piece(3, "c")]);
    }
}
