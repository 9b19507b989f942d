//! A test that a page names as `file.rs::name` is there: such a page says what is true because a test shows it.

use std::collections::BTreeMap;

use super::links::is_current;
use super::markdown::Page;
use super::tree::Tree;

/// Tests that pages name and that are not there.
pub(crate) fn problems(tree: &Tree, pages: &BTreeMap<&str, Page>) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, page) in pages.iter().filter(|(path, _)| is_current(path)) {
        for span in &page.spans {
            let Some((file, name)) = named(&span.text) else {
                continue;
            };
            let text = tree.text(file);
            if text.is_none_or(|text| !has_test(text, name)) {
                let line = span.line;
                problems.push(format!(
                    "{path}:{line} names the test `{file}::{name}`, but there is no such test"
                ));
            }
        }
    }
    problems
}

/// The file and the test in a span of code, if it names one.
fn named(span: &str) -> Option<(&str, &str)> {
    let (file, name) = span.split_once("::")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (file.ends_with(".rs") && !name.is_empty() && name.chars().all(plain)).then_some((file, name))
}

/// Whether a source has a test of this name: a function with an attribute that says so.
fn has_test(source: &str, name: &str) -> bool {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= ["#[test]", "#[tokio::test"]
                .iter()
                .any(|test| line.starts_with(test));
            continue;
        }
        let declared = line.split_once("fn ").map(|(_, rest)| rest);
        let is_named = declared.is_some_and(|rest| {
            rest.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('('))
        });
        if is_test && is_named {
            return true;
        }
        // A comment may stand between an attribute and its function.
        is_test &= line.starts_with("//");
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_test_that_is_not_there_is_a_problem() {
        let source = "#[test]\n#[ignore = \"slow\"]\n// Why.\nfn there() {}\nfn helper() {}\n\
                      #[tokio::test(flavor = \"multi_thread\")]\nasync fn here_too(x: u8) {}\n";
        let text = "`a/b.rs::there` `a/b.rs::here_too` `b.rs` `Type::function`\n\
                    `a/b.rs::helper` `a/b.rs::the` `a/c.rs::there`";
        let files = [
            ("CHANGELOG.md", text),
            ("docs/x.md", text),
            ("a/b.rs", source),
        ];
        let tree = Tree::of(&files);
        let pages = tree
            .ending(".md")
            .map(|(path, text)| (path, Page::of(text)))
            .collect();
        let expected = ["a/b.rs::helper", "a/b.rs::the", "a/c.rs::there"]
            .map(|test| format!("docs/x.md:2 names the test `{test}`, but there is no such test"));
        assert_eq!(problems(&tree, &pages), expected);
    }
}
