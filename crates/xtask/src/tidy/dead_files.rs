//! No file lies about that nothing uses: each Rust file is a target or a module of one, each migration
//! is applied (its folder or itself is named in Rust), each other file is named by a file that uses it.

use std::collections::BTreeSet;

use super::crates::Crate;
use super::tokens::{Token, group, tokens};
use super::tree::{Tree, folder, join};

/// Files that tools find by their names.
const FOUND_BY_NAME: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "rust-toolchain.toml",
];

/// The files that nothing uses.
pub(crate) fn problems(tree: &Tree, crates: &[Crate]) -> Vec<String> {
    let modules = modules(tree, crates);
    let dead_modules = tree
        .ending(".rs")
        .filter(|(path, _)| !modules.contains(*path))
        .map(|(path, _)| {
            format!("{path} is no module of any target: name it in a `mod`, or delete it")
        });
    let migrations = migration_folders(tree);
    let unused = tree
        .iter()
        .filter(|(path, _)| !path.ends_with(".rs") && !path.ends_with(".md"))
        .filter(|(path, _)| !path.split('/').any(|part| part.starts_with('.')))
        .filter(|(path, _)| !FOUND_BY_NAME.contains(&name(path)))
        .filter(|(path, _)| match path.ends_with(".sql") {
            true => !migrations.contains(folder(path)) && !is_applied(tree, path),
            false => !is_named(tree, path),
        })
        .map(|(path, _)| format!("{path} is used by no other file: delete it"));
    dead_modules.chain(unused).collect()
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether another file has its name, or imports it where it is Python.
fn is_named(tree: &Tree, path: &str) -> bool {
    let name = name(path);
    let module = name.strip_suffix(".py").unwrap_or_default();
    let imports = [format!("import {module}\n"), format!("from {module} ")];
    tree.iter()
        .filter(|(other, _)| *other != path)
        .any(|(_, text)| {
            let imported = || imports.iter().any(|import| text.contains(import));
            text.contains(name) || (!module.is_empty() && imported())
        })
}

fn is_applied(tree: &Tree, path: &str) -> bool {
    let mut sources = tree.ending(".rs");
    sources.any(|(_, text)| text.contains(&format!("{}\"", name(path))))
}

/// Every Rust file that the compiler reads for some target.
fn modules(tree: &Tree, crates: &[Crate]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let roots = crates.iter().flat_map(|member| &member.targets);
    // A file, and the folder in which its modules lie.
    let mut open: Vec<(String, String)> = roots
        .map(|target| (target.file.clone(), folder(&target.file).to_owned()))
        .collect();
    while let Some((file, inner)) = open.pop() {
        let Some(text) = tree.text(&file) else {
            continue;
        };
        // A file that two targets share may lie in the same place for both; it is read once for each place.
        found.insert(file.clone());
        for (child, child_inner) in children(tree, &tokens(text), folder(&file), &inner) {
            if !found.contains(&child) {
                open.push((child, child_inner));
            }
        }
    }
    found
}

/// The files that a source names: `mod x;`, `#[path = ".."] mod x;` and `include!`, each with the folder of its own
/// modules. `own` is the folder that the source lies in, `inner` that of its modules.
fn children(tree: &Tree, tokens: &[Token], own: &str, inner: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut path = None;
    for at in 0..tokens.len() {
        match (word(tokens, at), tokens.get(at + 1), tokens.get(at + 2)) {
            (Some("path"), Some(Token::Mark('=')), Some(Token::Text(text))) => {
                path = join(own, text)
            }
            (Some("include"), Some(Token::Mark('!')), Some(Token::Mark('('))) => {
                if let Some(Token::Text(text)) = tokens.get(at + 3) {
                    found.extend(join(own, text).map(|file| (file, inner.to_owned())));
                }
            }
            (Some("mod"), Some(Token::Word(name)), Some(Token::Mark(';'))) => {
                found.extend(module(tree, path.take(), &format!("{inner}/{name}")));
            }
            (Some("mod"), Some(Token::Word(name)), Some(Token::Mark('{'))) => {
                let inside = format!("{inner}/{name}");
                found.extend(children(tree, group(tokens, at + 2), &inside, &inside));
            }
            _ => {}
        }
    }
    found
}

fn module(tree: &Tree, path: Option<String>, place: &str) -> Option<(String, String)> {
    match path {
        Some(path) => {
            let inner = folder(&path).to_owned();
            Some((path, inner))
        }
        None => [format!("{place}.rs"), format!("{place}/mod.rs")]
            .into_iter()
            .find(|file| tree.text(file).is_some())
            .map(|file| (file, place.to_owned())),
    }
}

fn word(tokens: &[Token], at: usize) -> Option<&str> {
    tokens.get(at).and_then(Token::word)
}

/// The folders that a `migrate!` names, which it does from its crate's own.
fn migration_folders(tree: &Tree) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in tree.ending(".rs") {
        let Some((member, _)) = path.rsplit_once("/src/") else {
            continue;
        };
        for named in text.split("migrate!(\"").skip(1) {
            let named = named.split('"').next().unwrap_or_default();
            found.extend(join(member, named));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::crates::Target;
    use super::*;

    fn target(file: &str) -> Crate {
        Crate {
            targets: vec![Target {
                file: file.to_owned(),
                ..Target::default()
            }],
            ..Crate::default()
        }
    }

    #[test]
    fn modules_of_a_target_are_used_wherever_they_lie() {
        let tree = Tree::of(&[
            (
                "a/src/lib.rs",
                "mod b; mod c; mod inline { mod d; } #[path = \"odd/e.rs\"] mod e; include!(\"f.rs\");",
            ),
            ("a/src/b.rs", "mod g;"),
            ("a/src/b/g.rs", ""),
            ("a/src/c/mod.rs", "pub(crate) mod h;"),
            ("a/src/c/h.rs", ""),
            ("a/src/inline/d.rs", ""),
            ("a/src/odd/e.rs", "mod i;"),
            ("a/src/odd/i.rs", ""),
            ("a/src/f.rs", ""),
        ]);
        assert_eq!(problems(&tree, &[target("a/src/lib.rs")]), [""; 0]);
    }

    #[test]
    fn a_module_that_nobody_names_is_dead() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "// mod b;\nmod c;"),
            ("a/src/b.rs", ""),
            ("a/src/c.rs", ""),
        ]);
        let problems = problems(&tree, &[target("a/src/lib.rs")]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a/src/b.rs is no module"));
    }

    #[test]
    fn a_migration_that_nobody_applies_and_a_file_that_nobody_names_are_dead() {
        let tree = Tree::of(&[
            (
                "a/src/lib.rs",
                "migrate!(\"../m\"); include_str!(\"x.json\"); include_str!(\"../../n/2.sql\")",
            ),
            ("a/src/x.json", ""),
            ("a/src/y.json", ""),
            ("a/u.py", "from v import w"),
            ("a/v.py", "see u.py"),
            ("m/1.sql", ""),
            ("n/1.sql", ""),
            ("n/2.sql", ""),
            (".editorconfig", ""),
            ("Cargo.lock", ""),
        ]);
        let problems = problems(&tree, &[target("a/src/lib.rs")]);
        let expected = ["a/src/y.json is used", "n/1.sql is used"];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
