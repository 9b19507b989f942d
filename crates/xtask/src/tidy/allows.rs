//! Lints are not switched off where they are off already. .clippy.toml allows `unwrap` in the tests of a
//! crate's own source, so an `allow` there says nothing; programs under a crate's tests/ folder need theirs,
//! because clippy sees a test only in a function that is marked as one. And some lints nobody has switched on.

use super::tokens::{Token, group, tokens};
use super::tree::Tree;

const UNWRAP: &str = "unwrap_used";
/// Pedantic lints, which are off unless Cargo.toml says otherwise.
const PEDANTIC: [&str; 5] = [
    "cast_lossless",
    "cast_possible_truncation",
    "cast_possible_wrap",
    "cast_precision_loss",
    "cast_sign_loss",
];

/// The redundant `allow`s.
pub(crate) fn problems(tree: &Tree) -> Vec<String> {
    let manifest = tree.text("Cargo.toml").unwrap_or_default();
    let is_on = |lint: &str| manifest.contains(&format!("\n{lint} = "));
    let mut problems = Vec::new();
    for (path, text) in tree
        .ending(".rs")
        .filter(|(_, text)| text.contains("allow("))
    {
        for lint in allowed(&tokens(text)) {
            if lint == UNWRAP && path.contains("/src/") {
                problems.push(format!(
                    "{path} allows clippy::{lint}, which tests may do and nothing else may: delete it"
                ));
            } else if PEDANTIC.contains(&lint.as_str()) && !is_on(&lint) {
                problems.push(format!(
                    "{path} allows clippy::{lint}, a lint that is off: delete it"
                ));
            }
        }
    }
    problems
}

/// The lints of clippy in the `allow`s of a source.
fn allowed(tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let is_allow = tokens[at].word() == Some("allow");
        if !is_allow || !tokens.get(at + 1).is_some_and(|next| next.is('(')) {
            continue;
        }
        let words: Vec<&str> = group(tokens, at + 1)
            .iter()
            .filter_map(Token::word)
            .collect();
        let lints = words.windows(2).filter(|pair| pair[0] == "clippy");
        found.extend(lints.map(|pair| pair[1].to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(files: &[(&str, &str)], expected: &[&str]) {
        let problems = problems(&Tree::of(files));
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn an_allow_for_unwrap_is_redundant_in_a_crates_own_source_only() {
        let text = "mod tests {\n    #![allow(missing_docs, clippy::unwrap_used)]\n}\n";
        let files = [("a/src/b.rs", text), ("a/tests/c.rs", text)];
        says(&files, &["a/src/b.rs allows clippy::unwrap_used"]);
    }

    #[test]
    fn an_allow_of_a_lint_that_is_off_is_redundant() {
        let files = [
            (
                "Cargo.toml",
                "[workspace.lints.clippy]\ncast_sign_loss = \"warn\"\n",
            ),
            (
                "a.rs",
                "#[allow(clippy::cast_sign_loss)] fn f() {} // allow(clippy::cast_possible_wrap)\n\
                 #[allow(\n    clippy::cast_possible_wrap,\n    clippy::large_enum_variant\n)] fn g() {}",
            ),
        ];
        says(&files, &["a.rs allows clippy::cast_possible_wrap"]);
    }
}
