//! docs/tests.md says what is tested where: it names every end-to-end test.

use super::crates::Crate;
use super::tree::Tree;

const PAGE: &str = "docs/tests.md";
/// The crate of the end-to-end tests.
const FOLDER: &str = "tests";

/// The end-to-end tests that the page does not name.
pub(crate) fn problems(tree: &Tree, crates: &[Crate]) -> Vec<String> {
    let page = tree.text(PAGE).unwrap_or_default();
    let tests = crates.iter().filter(|member| member.folder == FOLDER);
    let targets = tests.flat_map(|member| &member.targets);
    targets
        .filter(|target| target.kind == "test")
        // A test of several files is named by its folder.
        .map(|target| target.file.trim_end_matches("/main.rs"))
        .filter(|file| !page.contains(*file))
        .map(|file| format!("{PAGE} does not say what {file} tests"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::crates::Target;
    use super::*;

    #[test]
    fn a_test_that_the_page_does_not_name_is_a_problem() {
        let target = |file: &str| Target {
            kind: "test".to_owned(),
            file: file.to_owned(),
            ..Target::default()
        };
        let files = [
            "tests/tests/a.rs",
            "tests/tests/b/main.rs",
            "tests/tests/c.rs",
        ];
        let member = Crate {
            folder: FOLDER.to_owned(),
            targets: files.map(target).into(),
            ..Crate::default()
        };
        let tree = Tree::of(&[(PAGE, "`tests/tests/a.rs` and `tests/tests/b`")]);
        let expected = ["docs/tests.md does not say what tests/tests/c.rs tests"];
        assert_eq!(problems(&tree, &[member]), expected);
    }
}
