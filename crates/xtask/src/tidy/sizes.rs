//! Files stay short enough to read. Functions do too: clippy's `too_many_lines` counts those, with the
//! limit of .clippy.toml.

use super::tree::Tree;

/// A source file has at most this many lines: what one can keep in mind while reading it.
const LINES_MAX: usize = 500;
/// How generators mark what they write; nobody reads that.
const GENERATED: &str = "@generated";

/// The Rust files that are too long.
pub(crate) fn problems(tree: &Tree) -> Vec<String> {
    tree.ending(".rs")
        .filter(|(_, text)| {
            !text
                .lines()
                .next()
                .is_some_and(|line| line.contains(GENERATED))
        })
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            (lines > LINES_MAX).then(|| {
                format!("{path} has {lines} lines, more than {LINES_MAX}: split it by subject")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_more_than_500_lines_is_a_problem() {
        let (fits, long) = ("x\n".repeat(LINES_MAX), "x\n".repeat(LINES_MAX + 1));
        let generated = format!("// {GENERATED} by a tool\n{long}");
        let tree = Tree::of(&[
            ("a.rs", &fits),
            ("b.rs", &long),
            ("c.md", &long),
            ("d.rs", &generated),
        ]);
        let problems = problems(&tree);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("b.rs has 501 lines"));
    }
}
