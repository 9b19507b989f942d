//! The files of the checkout that git knows or would take up, with their texts.

use std::collections::BTreeMap;
use std::process::Command;

use dovetail_tests::process::output;

/// Longer files are data (weights); their names count, their bytes do not.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Every file by its path from the root, with `/` between folders.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the checkout.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let root = dovetail_tests::root();
        let listed = output(Command::new("git").current_dir(&root).args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files = BTreeMap::new();
        for path in listed.lines() {
            // A file that was deleted and not yet committed is listed, but is not there.
            let Ok(metadata) = root.join(path).metadata() else {
                continue;
            };
            let text = match metadata.len() <= TEXT_BYTES_MAX {
                true => std::fs::read_to_string(root.join(path)).unwrap_or_default(),
                false => String::new(),
            };
            files.insert(path.to_owned(), text);
        }
        Ok(Self { files })
    }

    /// A made-up tree.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        Self { files }
    }

    /// All paths and texts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Those whose paths end so.
    pub(crate) fn ending(&self, ending: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(move |(path, _)| path.ends_with(ending))
    }

    /// A file's text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or a folder has this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.files.contains_key(path)
            || self
                .files
                .range(folder.clone()..)
                .next()
                .is_some_and(|(first, _)| first.starts_with(&folder))
    }
}

/// The folder of a path; empty for the root.
pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `path` as seen from `folder`, without `.` and `..`; nothing if it leaves the checkout.
pub(crate) fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_joined_to_a_folder() {
        assert_eq!(join("a/b", "../c/./d.rs").unwrap(), "a/c/d.rs");
        assert_eq!(join("", "c").unwrap(), "c");
        assert_eq!(join("a", "../../c"), None);
    }

    #[test]
    fn a_tree_has_its_files_and_their_folders() {
        let tree = Tree::of(&[("a/b/c.rs", ""), ("a/bc", "")]);
        for path in ["a", "a/", "a/b", "a/b/c.rs", "a/bc", ""] {
            assert!(tree.has(path), "{path}");
        }
        for path in ["a/b/c", "b", "a/b/c.rs/d"] {
            assert!(!tree.has(path), "{path}");
        }
    }
}
