//! The command lines of our programs, read from the types that clap derives them from, so that tidy
//! needs to build no program.

use std::collections::BTreeMap;

use super::crates::Crate;
use super::tree::Tree;
use super::types::{Attributes, Field, Type, Variant, types};

/// How deep types and subcommands are followed; ours are three deep.
const DEPTH_MAX: usize = 8;

/// A command: what may follow its name.
#[derive(Debug, Default)]
pub(crate) struct Command {
    pub(crate) subcommands: BTreeMap<String, Command>,
    /// Long options, without the dashes; whether a value follows.
    pub(crate) options: BTreeMap<String, bool>,
}

impl Command {
    /// Whether it or a subcommand of it has this option.
    pub(crate) fn offers(&self, option: &str) -> bool {
        self.options.contains_key(option)
            || self.subcommands.values().any(|inner| inner.offers(option))
    }
}

/// All programs by name.
pub(crate) fn programs(tree: &Tree, crates: &[Crate]) -> BTreeMap<String, Command> {
    let sources = Sources::of(tree);
    let mut found = BTreeMap::new();
    for member in crates {
        for target in member.targets.iter().filter(|target| target.kind == "bin") {
            let place = Place {
                file: &target.file,
                folder: &member.folder,
            };
            if let Some(parser) = sources.parser(&place) {
                let mut command = Command::default();
                sources.extend(&mut command, parser, &place, 0);
                found.insert(target.name.clone(), command);
            }
        }
    }
    found
}

/// Where a type is looked for first.
struct Place<'a> {
    file: &'a str,
    folder: &'a str,
}

/// The types that clap derives from, with their files.
struct Sources<'a>(Vec<(&'a str, Type)>);

impl<'a> Sources<'a> {
    fn of(tree: &'a Tree) -> Self {
        let derived = |found: &Type| {
            let derives = ["Parser", "Subcommand", "Args"];
            derives
                .iter()
                .any(|name| found.attributes.has("derive", name))
        };
        let sources = tree.ending(".rs").filter(|(_, text)| text.contains("clap"));
        let found = sources
            .flat_map(|(path, text)| types(text).into_iter().map(move |found| (path, found)));
        Self(found.filter(|(_, found)| derived(found)).collect())
    }

    fn parser(&self, place: &Place<'_>) -> Option<&Type> {
        self.nearest(place, true, |found| {
            found.attributes.has("derive", "Parser")
        })
    }

    /// The type that one of these words names.
    fn named(&self, place: &Place<'_>, words: &[String]) -> Option<&Type> {
        self.nearest(place, false, |found| words.contains(&found.name))
    }

    /// In this file, else in this crate, else anywhere.
    fn nearest(
        &self,
        place: &Place<'_>,
        here: bool,
        wanted: impl Fn(&Type) -> bool,
    ) -> Option<&Type> {
        let source = format!("{}/src/", place.folder);
        let near = |path: &str, step: usize| match step {
            0 => path == place.file,
            1 => path.starts_with(&source),
            _ => !here,
        };
        (0..3).find_map(|step| {
            let mut known = self.0.iter().filter(|(path, _)| near(path, step));
            known
                .find(|(_, found)| wanted(found))
                .map(|(_, found)| found)
        })
    }

    /// Adds to a command what a type declares.
    fn extend(&self, command: &mut Command, declared: &Type, place: &Place<'_>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        self.extend_by_fields(command, &declared.fields, place, depth);
        for variant in &declared.variants {
            let mut inner = Command::default();
            self.extend_by_fields(&mut inner, &variant.fields, place, depth);
            if let Some(declared) = self.named(place, &variant.words) {
                self.extend(&mut inner, declared, place, depth + 1);
            }
            command.subcommands.insert(variant_name(variant), inner);
        }
    }

    fn extend_by_fields(
        &self,
        command: &mut Command,
        fields: &[Field],
        place: &Place<'_>,
        depth: usize,
    ) {
        for field in fields {
            let inside = |word| field.attributes.has("command", word);
            if inside("subcommand") || inside("flatten") {
                if let Some(declared) = self.named(place, &field.words) {
                    self.extend(command, declared, place, depth + 1);
                }
            } else if field.attributes.has("arg", "long") {
                let name = named(&field.attributes, "arg", "long");
                let name = name.unwrap_or_else(|| field.name.replace('_', "-"));
                command.options.insert(name, field.words != ["bool"]);
            }
        }
    }
}

fn named(attributes: &Attributes, attribute: &str, key: &str) -> Option<String> {
    attributes.text(attribute, key).map(str::to_owned)
}

/// What clap calls a variant: `MakeTiny` is `make-tiny`.
fn variant_name(variant: &Variant) -> String {
    named(&variant.attributes, "command", "name").unwrap_or_else(|| {
        let mut name = String::new();
        for c in variant.name.chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(c.to_lowercase());
        }
        name
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::crates::Target;
    use super::*;

    /// A tree of a program `x` whose types lie in several files, and its crates.
    pub(crate) fn made_up() -> (Tree, Vec<Crate>) {
        let tree = Tree::of(&[
            (
                "x/src/main.rs",
                "use clap::Parser;
                 #[derive(Parser)] struct Arguments {
                     #[arg(long, global = true)] config: PathBuf,
                     #[command(subcommand)] command: Option<Command>,
                 }
                 #[derive(Subcommand)] enum Command { Run, Model(model::ModelArguments), Say { #[arg(long)] all: bool } }",
            ),
            (
                "x/src/model.rs",
                "use clap::Args;
                 #[derive(Args)] struct ModelArguments { #[command(subcommand)] command: ModelCommand }
                 #[derive(Subcommand)] enum ModelCommand {
                     MakeTiny { #[arg(long = \"file\")] out: PathBuf, #[command(flatten)] more: Sampling },
                 }",
            ),
            ("y/src/lib.rs", "#[derive(clap::Args)] struct Sampling { #[arg(long)] top_k: u32 }"),
        ]);
        let bin = Target {
            name: "x".to_owned(),
            kind: "bin".to_owned(),
            file: "x/src/main.rs".to_owned(),
        };
        let member = Crate {
            folder: "x".to_owned(),
            package: "x-package".to_owned(),
            targets: vec![bin],
            ..Crate::default()
        };
        (tree, vec![member])
    }

    #[test]
    fn subcommands_and_options_are_found_across_files_and_crates() {
        let (tree, crates) = made_up();
        let programs = programs(&tree, &crates);
        let x = &programs["x"];
        assert!(x.options["config"]);
        let names: Vec<&String> = x.subcommands.keys().collect();
        assert_eq!(names, ["model", "run", "say"]);
        assert!(!x.subcommands["say"].options["all"]);
        let make = &x.subcommands["model"].subcommands["make-tiny"];
        let options: Vec<&String> = make.options.keys().collect();
        assert_eq!(options, ["file", "top-k"]);
    }
}
