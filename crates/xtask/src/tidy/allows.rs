//! Lints are not switched off where they are off already: .clippy.toml allows `unwrap` in the tests of a
//! crate's own source, so an `allow` there says nothing. Programs under a crate's tests/ folder need theirs:
//! clippy sees a test only in a function that is marked as one.

use super::tree::Tree;

const REDUNDANT: &str = "allow(clippy::unwrap_used)";

/// The redundant `allow`s.
pub(crate) fn problems(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree
        .ending(".rs")
        .filter(|(path, _)| path.contains("/src/"))
    {
        for (index, line) in text.lines().enumerate() {
            let attribute = line.trim_start().trim_start_matches(['#', '!', '[']);
            if attribute.starts_with(REDUNDANT) {
                let line = index + 1;
                problems.push(format!(
                    "{path}:{line} allows unwrap, which tests may do and nothing else may: delete it"
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_for_unwrap_is_redundant_in_a_crates_own_source_only() {
        let text = "mod tests {\n    #![allow(clippy::unwrap_used)]\n}\n";
        let tree = Tree::of(&[("a/src/b.rs", text), ("a/tests/c.rs", text)]);
        let problems = problems(&tree);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a/src/b.rs:2 "));
    }
}
