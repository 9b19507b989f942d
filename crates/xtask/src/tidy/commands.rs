//! Commands that the pages name are there: `cargo xtask X`, `dovetail-worker X --y`, `cargo run --package Z`.

use std::collections::{BTreeMap, BTreeSet};

use super::command_line::{Command, programs};
use super::crates::Crate;
use super::links::is_current;
use super::markdown::{Block, Page, Piece};
use super::tree::Tree;

/// What ends a command within a line.
const ENDS: [&str; 8] = ["|", "||", "&&", ";", "&", ">", ">>", "<"];

/// The programs and packages that a command may name.
struct Known<'a> {
    programs: BTreeMap<String, Command>,
    crates: &'a [Crate],
}

/// The commands that would be refused.
pub(crate) fn problems(tree: &Tree, pages: &BTreeMap<&str, Page>, crates: &[Crate]) -> Vec<String> {
    let known = Known {
        programs: programs(tree, crates),
        crates,
    };
    let mut problems = Vec::new();
    for (path, page) in pages.iter().filter(|(path, _)| is_current(path)) {
        let lines = page.blocks.iter().flat_map(commands);
        let lines = lines.map(|(line, text)| (line, text, true));
        let spans = page.spans.iter();
        let spans = spans.map(|span| (span.line, span.text.clone(), false));
        for (line, text, typed_out) in lines.chain(spans) {
            if let Some(problem) = known.problem(&text, typed_out) {
                problems.push(format!("{path}:{line} names `{text}`, but {problem}"));
            }
        }
    }
    problems
}

/// The lines of a block that somebody is to type, continued ones as one.
fn commands(block: &Block) -> Vec<(usize, String)> {
    let typed = |piece: &Piece| match block.language.as_str() {
        "sh" | "bash" | "shell" | "" => Some(piece.text.clone()),
        // Among the output.
        "console" => piece
            .text
            .trim_start()
            .strip_prefix("$ ")
            .map(str::to_owned),
        _ => None,
    };
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for piece in &block.lines {
        let text = match continued {
            true => Some(piece.text.clone()),
            false => typed(piece),
        };
        let Some(text) = text else { continue };
        let more = text.trim_end().ends_with('\\');
        let text = text.trim().trim_end_matches('\\').trim();
        match found.last_mut() {
            Some((_, last)) if continued => {
                last.push(' ');
                last.push_str(text);
            }
            _ => found.push((piece.line, text.to_owned())),
        }
        continued = more;
    }
    found
}

impl Known<'_> {
    /// What is wrong with the commands of a line. One that is not typed out may leave its subcommand away and
    /// name an option of it.
    fn problem(&self, line: &str, typed_out: bool) -> Option<String> {
        let typed = line.split(" # ").next().unwrap_or_default();
        let typed = typed.replace(';', " ; ");
        let words: Vec<&str> = typed.split_whitespace().collect();
        let commands = words.split(|word| ENDS.contains(word));
        commands.into_iter().find_map(|words| {
            let words = command_of(words);
            let first = *words.first()?;
            self.is_program(first)
                .then(|| self.refused(words, typed_out))?
        })
    }

    fn is_program(&self, word: &str) -> bool {
        let name = program_name(word);
        name == "cargo" || (name != "xtask" && self.programs.contains_key(name))
    }

    fn refused(&self, words: &[&str], typed_out: bool) -> Option<String> {
        match (program_name(words[0]), words.get(1)) {
            ("cargo", Some(&"xtask")) => self.check(
                "cargo xtask",
                self.programs.get("xtask")?,
                &words[2..],
                typed_out,
            ),
            ("cargo", Some(_)) => self.cargo(words),
            (name, _) => self.check(name, self.programs.get(name)?, &words[1..], typed_out),
        }
    }

    /// `cargo run --package X --bin Y -- arguments` and its like.
    fn cargo(&self, words: &[&str]) -> Option<String> {
        let own = words
            .iter()
            .position(|word| *word == "--")
            .unwrap_or(words.len());
        let value = |names: [&str; 2]| {
            let at = words[..own].iter().position(|word| names.contains(word))?;
            words.get(at + 1).filter(|value| is_name(value)).copied()
        };
        let targets = |kind: &str| -> BTreeSet<&str> {
            let targets = self.crates.iter().flat_map(|member| &member.targets);
            targets
                .filter(|target| target.kind == kind)
                .map(|target| target.name.as_str())
                .collect()
        };
        let package = value(["-p", "--package"]);
        let member = self
            .crates
            .iter()
            .find(|member| Some(member.package.as_str()) == package);
        if let (Some(package), None) = (package, member) {
            return Some(format!("there is no package {package}"));
        }
        for (option, kind) in [
            ("--bin", "bin"),
            ("--example", "example"),
            ("--test", "test"),
        ] {
            match value([option, option]) {
                Some(name) if !targets(kind).contains(name) => {
                    return Some(format!("there is no {kind} {name}"));
                }
                _ => {}
            }
        }
        let only =
            member.and_then(|member| member.targets.iter().find(|target| target.kind == "bin"));
        let program = value(["--bin", "--bin"]).or(only.map(|target| target.name.as_str()))?;
        let runs = words.get(1) == Some(&"run") && value(["--example", "--example"]).is_none();
        let arguments = words.get(own + 1..).filter(|_| runs)?;
        self.check(program, self.programs.get(program)?, arguments, true)
    }

    /// Follows the subcommands, then looks for the options.
    fn check(
        &self,
        name: &str,
        program: &Command,
        words: &[&str],
        typed_out: bool,
    ) -> Option<String> {
        let mut command = program;
        let mut name = name.to_owned();
        let mut options = vec![&program.options];
        let mut skip = false;
        for word in words {
            let known =
                option(word).and_then(|option| options.iter().find_map(|known| known.get(option)));
            if std::mem::take(&mut skip) {
                continue;
            }
            if let Some(option) = option(word) {
                let help = ["help", "version", ""].contains(&option);
                match known {
                    Some(value) => skip = *value && !word.contains('='),
                    None if help || (!typed_out && command.offers(option)) => {}
                    None => return Some(format!("`{name}` has no option --{option}")),
                }
            } else if is_name(word) && !command.subcommands.is_empty() {
                let Some(next) = command.subcommands.get(*word) else {
                    return Some(format!("`{name}` has no command {word}"));
                };
                command = next;
                name = format!("{name} {word}");
                options.push(&command.options);
            }
        }
        None
    }
}

/// A command without the settings of the environment and the `sudo -u name` that come first.
fn command_of<'a, 'b>(words: &'a [&'b str]) -> &'a [&'b str] {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += match *word {
            "-u" => 2,
            "sudo" | "env" | "time" => 1,
            word if word.contains('=') => 1,
            _ => break,
        };
    }
    &words[at.min(words.len())..]
}

fn program_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The name of a long option, without what it is set to and without punctuation around it.
fn option(word: &str) -> Option<&str> {
    let option = word.trim_start_matches('[').strip_prefix("--")?;
    option.split(['=', ']', ',', ')']).next()
}

/// A word as commands have, and no placeholder.
fn is_name(word: &str) -> bool {
    let first = word.chars().next();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    first.is_some_and(|c| c.is_ascii_lowercase()) && word.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::super::command_line::tests::made_up;
    use super::*;

    #[track_caller]
    fn says(page: &str, expected: &[&str]) {
        let (tree, crates) = made_up();
        let pages = BTreeMap::from([("README.md", Page::of(page))]);
        assert_eq!(problems(&tree, &pages, &crates), expected);
    }

    #[test]
    fn commands_that_are_there_are_no_problem() {
        says(
            "`x run` and `x`, `x SUB`, `x --config FILE model make-tiny --file F --top-k 3`, `x --all`, `y odd`\n
```sh
A=b target/debug/x say --all | grep z # x odd
sudo -u x install --mode 1 && sudo -u y x run
x model \\
  make-tiny
cargo run -p x-package -- say --all
```
```console
$ x run --help
x odd output
```
```rust
x odd
```
",
            &[],
        );
    }

    #[test]
    fn commands_and_options_that_are_not_there_are_problems() {
        says(
            "`x walk`, `x run --fast`, `cargo run --package z`, `cargo run --bin z`\n
```
x say; x model make-big
x --all
cargo run -p x-package -- say --none
```
",
            &[
                "README.md:4 names `x say; x model make-big`, but `x model` has no command make-big",
                "README.md:5 names `x --all`, but `x` has no option --all",
                "README.md:6 names `cargo run -p x-package -- say --none`, but `x say` has no option --none",
                "README.md:1 names `x walk`, but `x` has no command walk",
                "README.md:1 names `x run --fast`, but `x run` has no option --fast",
                "README.md:1 names `cargo run --package z`, but there is no package z",
                "README.md:1 names `cargo run --bin z`, but there is no bin z",
            ],
        );
    }
}
