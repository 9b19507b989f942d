//! `cargo xtask tidy`: rules that no compiler checks. Each has a file of its own here; all of them read the
//! checkout as text, and none needs a build.

mod allows;
mod command_line;
mod commands;
mod crates;
mod dead_files;
mod edges;
mod links;
mod markdown;
mod named_tests;
mod settings;
mod sizes;
mod test_list;
mod tokens;
mod tree;
mod types;

use std::collections::BTreeMap;

use anyhow::bail;
use markdown::Page;
use tree::Tree;

/// Checks the checkout; says all that is wrong.
pub(crate) fn check() -> anyhow::Result<()> {
    let tree = Tree::read()?;
    let crates = crates::crates(&tree)?;
    let pages: BTreeMap<&str, Page> = tree
        .ending(".md")
        .map(|(path, text)| (path, Page::of(text)))
        .collect();
    let structure = tree.text(edges::PAGE).unwrap_or_default();
    let rules = [
        (
            "dependencies between crates",
            edges::problems(structure, &crates),
        ),
        ("sizes of files", sizes::problems(&tree)),
        ("dead files", dead_files::problems(&tree, &crates)),
        ("links and file names", links::problems(&tree, &pages)),
        ("commands", commands::problems(&tree, &pages, &crates)),
        ("configuration keys", settings::problems(&tree, &pages)),
        ("list of tests", test_list::problems(&tree, &crates)),
        (
            "tests that pages name",
            named_tests::problems(&tree, &pages),
        ),
        ("lints", allows::problems(&tree)),
    ];
    let mut count = 0;
    for (rule, problems) in &rules {
        if !problems.is_empty() {
            eprintln!("{rule}:");
        }
        for problem in problems {
            eprintln!("  {problem}");
        }
        count += problems.len();
    }
    if count > 0 {
        bail!("{count} things are not tidy");
    }
    let files = tree.iter().count();
    eprintln!(
        "{} rules hold for {files} files of {} crates",
        rules.len(),
        crates.len()
    );
    Ok(())
}
