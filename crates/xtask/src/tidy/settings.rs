//! Configuration keys that the pages name are there: in the examples of config/, which the daemons'
//! tests hold against the structs, or in a struct that configuration is read into.

use std::collections::{BTreeMap, BTreeSet};

use super::links::is_current;
use super::markdown::{Block, Page};
use super::tree::Tree;
use super::types::types;

/// Endings of file names, which look like keys: `worker.key`.
const FILE_ENDINGS: [&str; 10] = [
    "blocks", "json", "key", "left", "md", "proto", "rs", "secret", "sock", "toml",
];

/// Sections with their keys, and the keys of all structs.
#[derive(Default)]
struct Known {
    sections: BTreeMap<String, BTreeSet<String>>,
    fields: BTreeSet<String>,
}

/// The sections and keys that no daemon knows.
pub(crate) fn problems(tree: &Tree, pages: &BTreeMap<&str, Page>) -> Vec<String> {
    let known = Known::of(tree);
    let mut problems = Vec::new();
    for (path, page) in pages.iter().filter(|(path, _)| is_current(path)) {
        let spans = page
            .spans
            .iter()
            .map(|span| (span.line, known.span_problem(&span.text)));
        let blocks = page.blocks.iter().filter(|block| block.language == "toml");
        let lines = blocks.flat_map(|block| known.block_problems(block));
        for (line, problem) in spans.chain(lines) {
            problems.extend(problem.map(|problem| format!("{path}:{line} names {problem}")));
        }
    }
    problems
}

impl Known {
    fn of(tree: &Tree) -> Self {
        let mut known = Self::default();
        for (path, text) in tree.ending(".toml") {
            if path.starts_with("config/") {
                known.take_example(text);
            }
        }
        for (_, text) in tree.ending(".rs") {
            if !text.contains("deny_unknown_fields") {
                continue;
            }
            let strict = types(text).into_iter();
            for declared in
                strict.filter(|found| found.attributes.has("serde", "deny_unknown_fields"))
            {
                let inner = declared
                    .variants
                    .into_iter()
                    .flat_map(|variant| variant.fields);
                let fields = declared.fields.into_iter().chain(inner);
                known.fields.extend(fields.map(|field| field.name));
            }
        }
        known
    }

    /// What is commented out counts too: it has to have the right names.
    fn take_example(&mut self, text: &str) {
        let mut section = String::new();
        for line in text.lines() {
            let line = line.trim_start_matches(['#', ' ']);
            if let Some(name) = header(line).filter(|_| line.ends_with(']')) {
                name.clone_into(&mut section);
                self.sections.entry(section.clone()).or_default();
                continue;
            }
            let keys = line.match_indices(" =").filter_map(|(at, _)| {
                let key = line[..at].rsplit(|c: char| !is_plain(c)).next()?;
                (!key.is_empty()).then(|| key.to_owned())
            });
            self.sections
                .entry(section.clone())
                .or_default()
                .extend(keys);
            // A comment may name a section that the example does not have.
            for named in line.split('[').skip(1) {
                let named = named.split(']').next().unwrap_or_default();
                if named.contains('.') && named.chars().all(|c| is_plain(c) || c == '.') {
                    self.sections.entry(named.to_owned()).or_default();
                }
            }
        }
    }

    fn problem(&self, section: &str, key: &str) -> Option<String> {
        let Some(keys) = self.sections.get(section) else {
            return Some(format!(
                "the section [{section}], which no example in config/ has"
            ));
        };
        let inner = format!("{section}.{key}");
        let is_known =
            keys.contains(key) || self.fields.contains(key) || self.sections.contains_key(&inner);
        (!is_known && !key.is_empty())
            .then(|| format!("`{inner}`, but [{section}] has no such key"))
    }

    /// `[section]`, `[section] key`, `section.key`, `DOVETAIL_POOL__SECTION__KEY`.
    fn span_problem(&self, span: &str) -> Option<String> {
        if let Some(section) = header(span) {
            let after = span.rsplit(']').next().unwrap_or_default();
            let key = after.split('=').next().unwrap_or_default().trim();
            return match key.chars().all(is_plain) {
                true => self.problem(section, key),
                false => None,
            };
        }
        if let Some((_, variable)) = span
            .split_once("__")
            .filter(|_| span.starts_with("DOVETAIL_"))
        {
            let variable = variable
                .split('=')
                .next()
                .unwrap_or_default()
                .to_lowercase();
            let path = variable.replace("__", ".");
            let (section, key) = path.rsplit_once('.')?;
            return match section == "section" {
                true => None,
                false => self.problem(section, key),
            };
        }
        let (section, key) = span.rsplit_once('.')?;
        let is_key = !section.is_empty()
            && self.sections.contains_key(section)
            && key.chars().all(is_plain)
            && !FILE_ENDINGS.contains(&key);
        if is_key {
            self.problem(section, key)
        } else {
            None
        }
    }

    /// Of a block of ours: that of another program has none of our sections.
    fn block_problems(&self, block: &Block) -> Vec<(usize, Option<String>)> {
        let text = |line: &super::markdown::Piece| line.text.trim().to_owned();
        let is_ours =
            |line| header(&text(line)).is_some_and(|name| self.sections.contains_key(name));
        if !block.lines.iter().any(is_ours) {
            return Vec::new();
        }
        let mut section = String::new();
        let mut found = Vec::new();
        for line in &block.lines {
            let stripped = text(line);
            let key = stripped.split('=').next().unwrap_or_default().trim();
            if let Some(name) = header(&stripped) {
                name.clone_into(&mut section);
                found.push((line.line, self.problem(&section, "")));
            } else if stripped.contains('=') && !section.is_empty() && key.chars().all(is_plain) {
                found.push((line.line, self.problem(&section, key)));
            }
        }
        found
    }
}

/// The name in `[name]` or `[[name]]`, which `text` begins with.
fn header(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('[')?.split_once(']')?;
    let name = name.strip_prefix('[').unwrap_or(name);
    let is_name = !name.is_empty() && name.chars().all(|c| is_plain(c) || c == '.');
    is_name.then_some(name)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(page: &str, expected: &[&str]) {
        let tree = Tree::of(&[
            (
                "config/x.toml",
                "[pool]\n# One of:\n#   kind = \"a\"   file = \"b\"\nlisten = \"\"\n# [solo]\n# script = \"\"\n\
                 # [pool.limits] has keys, too.\n[[many]]\n",
            ),
            (
                "x/src/config.rs",
                "#[serde(deny_unknown_fields)] struct Limits { rate_max: u8 } struct Other { rate_min: u8 }",
            ),
        ]);
        let pages = BTreeMap::from([("README.md", Page::of(page))]);
        assert_eq!(problems(&tree, &pages), expected);
    }

    #[test]
    fn keys_of_the_examples_and_of_the_structs_are_known() {
        says(
            "`[pool]` `[[many]]` `[pool] listen = ...` `pool.file` `solo.script` `pool.limits.rate_max` `pool.limits` \
             `pool.rs` `other.thing` `DOVETAIL_POOL__SECTION__KEY` `DOVETAIL_X__POOL__LIMITS__RATE_MAX=1` `a[0]` `.listens`\n
```toml\n[pool]\nkind = \"c\"\nrate_max = 3\n```\n```toml\n[dependencies]\nx = \"1\"\n```\n",
            &[],
        );
    }

    #[test]
    fn keys_that_no_daemon_knows_are_problems() {
        says(
            "`[pond]` `pool.listens` `pool.rate_min` `DOVETAIL_X__POOL__LISTENS=1`\n
```toml\n[pool]\nlistens = 1\n[pond]\n```\n",
            &[
                "README.md:1 names the section [pond], which no example in config/ has",
                "README.md:1 names `pool.listens`, but [pool] has no such key",
                "README.md:1 names `pool.rate_min`, but [pool] has no such key",
                "README.md:1 names `pool.listens`, but [pool] has no such key",
                "README.md:5 names `pool.listens`, but [pool] has no such key",
                "README.md:6 names the section [pond], which no example in config/ has",
            ],
        );
    }
}
