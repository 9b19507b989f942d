//! What a page points to is there: linked files and headings, files that it names in backticks. So is a page
//! that a source names. And each page of docs/ can be found from another page.

use std::collections::{BTreeMap, BTreeSet};

use super::markdown::Page;
use super::tree::{Tree, folder, join};

/// Pages that tell of the past, where a name may be one that is gone.
pub(crate) const HISTORY: [&str; 2] = ["CHANGELOG.md", "docs/decisions/"];

/// Whether a page speaks of the present.
pub(crate) fn is_current(page: &str) -> bool {
    !HISTORY.iter().any(|past| page.starts_with(past))
}

/// What points nowhere, and what nothing points to.
pub(crate) fn problems(tree: &Tree, pages: &BTreeMap<&str, Page>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut linked = BTreeSet::new();
    for (path, page) in pages {
        for link in &page.links {
            let target = link.text.as_str();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let at = format!("{path}:{}", link.line);
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let found = match file {
                "" => Some((*path).to_owned()),
                file => join(folder(path), file).filter(|file| tree.has(file)),
            };
            let Some(found) = found else {
                problems.push(format!(
                    "{at} links to `{target}`, but there is no such file"
                ));
                continue;
            };
            let headings = pages.get(found.as_str()).map(|page| &page.anchors);
            if !anchor.is_empty() && headings.is_some_and(|headings| !headings.contains(anchor)) {
                problems.push(format!(
                    "{at} links to `{target}`, but {found} has no such heading"
                ));
            }
            if found != *path {
                linked.insert(found);
            }
        }
        if is_current(path) {
            problems.extend(missing(tree, path, page));
        }
    }
    problems.extend(
        tree.iter()
            .flat_map(|(path, text)| missing_pages(tree, path, text)),
    );
    let lost = pages.keys().filter(|path| path.starts_with("docs/"));
    let lost = lost.filter(|path| !linked.contains(**path) && !linked.contains(folder(path)));
    problems.extend(lost.map(|path| format!("{path}: no other page links to it")));
    problems
}

/// Files that a page names and that are not there.
fn missing(tree: &Tree, path: &str, page: &Page) -> Vec<String> {
    let named = page.spans.iter().filter(|span| !exists(tree, &span.text));
    named
        .map(|span| {
            let (line, name) = (span.line, &span.text);
            format!("{path}:{line} names `{name}`, but there is no such file")
        })
        .collect()
}

/// Pages of docs/ that a source names, as comments and errors do, and that are not there. Tidy's own tests make
/// pages up.
fn missing_pages(tree: &Tree, path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path.ends_with(".md") || path.starts_with("crates/xtask/src/tidy/") {
        return found;
    }
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("docs/") {
            let rest = &line[at..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c)));
            let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            if name.ends_with(".md") && !tree.has(name) {
                found.push(format!(
                    "{path}:{} names {name}, but there is no such page",
                    index + 1
                ));
            }
        }
    }
    found
}

/// Whether what stands in backticks is no name of a file of ours, or the name of one that is there.
fn exists(tree: &Tree, name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let Some((first, _)) = name.split_once('/') else {
        return !is_source(name) || tree.ending(".rs").any(|(path, _)| is_last(path, name));
    };
    if !name.chars().all(plain) || first.is_empty() {
        return true;
    }
    if tree.has(first) && !first.starts_with('.') {
        return tree.has(name);
    }
    !is_source(name) || tree.ending(".rs").any(|(path, _)| is_last(path, name))
}

fn is_source(name: &str) -> bool {
    let stem = name.strip_suffix(".rs");
    stem.is_some_and(|stem| {
        stem.chars()
            .all(|c| c.is_ascii_alphanumeric() || "_/-".contains(c))
    })
}

fn is_last(path: &str, name: &str) -> bool {
    let before = path.strip_suffix(name);
    before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(files: &[(&str, &str)], expected: &[&str]) {
        let tree = Tree::of(files);
        let pages = tree
            .ending(".md")
            .map(|(path, text)| (path, Page::of(text)))
            .collect();
        assert_eq!(problems(&tree, &pages), expected);
    }

    #[test]
    fn links_to_files_folders_and_headings_resolve() {
        let files = [
            (
                "README.md",
                "[a](docs/a.md#one-two) [b](src) [c](#d) [e](https://f)\n# D",
            ),
            ("docs/a.md", "# One two\n[up](../README.md)"),
            ("src/x.rs", ""),
        ];
        says(&files, &[]);
    }

    #[test]
    fn a_link_to_nothing_is_a_problem() {
        let files = [
            ("README.md", "\n[a](b.md) [c](docs/d.md#e) [f](#g)"),
            ("docs/d.md", ""),
        ];
        let expected = [
            "README.md:2 links to `b.md`, but there is no such file",
            "README.md:2 links to `docs/d.md#e`, but docs/d.md has no such heading",
            "README.md:2 links to `#g`, but README.md has no such heading",
        ];
        says(&files, &expected);
    }

    #[test]
    fn a_page_that_nothing_links_to_is_a_problem() {
        let files = [("README.md", ""), ("docs/a.md", "[me](a.md)")];
        says(&files, &["docs/a.md: no other page links to it"]);
    }

    #[test]
    fn a_page_that_a_source_names_is_there() {
        let files = [
            ("README.md", "[a](docs/a.md)"),
            ("docs/a.md", ""),
            ("src/b.rs", "// See docs/a.md.\n// And docs/b.md."),
        ];
        says(
            &files,
            &["src/b.rs:2 names docs/b.md, but there is no such page"],
        );
    }

    #[test]
    fn files_named_in_backticks_are_there_but_for_pages_of_the_past() {
        let text = "`pool/src/a.rs` `a.rs` `src/a.rs` `pool/src` `text/plain` `/etc/b.rs` `x.y`\n\
                    `pool/src/b.rs` `b.rs` `src/b.rs`";
        let files = [
            ("CHANGELOG.md", text),
            ("README.md", text),
            ("pool/src/a.rs", ""),
        ];
        let expected = [
            "README.md:2 names `pool/src/b.rs`, but there is no such file",
            "README.md:2 names `b.rs`, but there is no such file",
            "README.md:2 names `src/b.rs`, but there is no such file",
        ];
        says(&files, &expected);
    }
}
