//! The crates of this repository as their manifests declare them: who depends on whom, and which
//! files are targets.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use dovetail_tests::process::output;
use serde_json::Value;

use super::tree::Tree;
use crate::steps::cargo;

/// A crate, named by its folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Crate {
    pub(crate) folder: String,
    pub(crate) package: String,
    /// The folders of the crates that it needs to be built.
    pub(crate) edges: BTreeSet<String>,
    /// The folders of those that its tests need besides.
    pub(crate) test_edges: BTreeSet<String>,
    pub(crate) targets: Vec<Target>,
}

/// What cargo compiles of a crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `example`, `custom-build`, ...
    pub(crate) kind: String,
    pub(crate) file: String,
}

/// Every crate: those of the workspace, and those that are workspaces of their own.
pub(crate) fn crates(tree: &Tree) -> anyhow::Result<Vec<Crate>> {
    let mut found = Vec::new();
    let mut read = BTreeSet::new();
    // The root's manifest comes first, so that its members are not asked one by one.
    let mut manifests: Vec<&str> = tree.ending("Cargo.toml").map(|(path, _)| path).collect();
    manifests.sort_by_key(|path| path.len());
    for manifest in manifests {
        if read.contains(manifest) {
            continue;
        }
        for member in ask(manifest)? {
            read.insert(format!("{}/Cargo.toml", member.folder));
            found.push(member);
        }
    }
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(found)
}

fn ask(manifest: &str) -> anyhow::Result<Vec<Crate>> {
    let said = output(&mut cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
        "--manifest-path",
        manifest,
    ]))?;
    let metadata = serde_json::from_str(&said).context("cargo metadata prints no JSON")?;
    Ok(members(&metadata, &dovetail_tests::root()))
}

fn members(metadata: &Value, root: &Path) -> Vec<Crate> {
    let packages = metadata["packages"].as_array();
    packages
        .into_iter()
        .flatten()
        .map(|package| {
            let manifest = inside(&package["manifest_path"], root);
            let edges = |wanted: fn(&Value) -> bool| -> BTreeSet<String> {
                let dependencies = package["dependencies"].as_array();
                dependencies
                    .into_iter()
                    .flatten()
                    .filter(|dependency| dependency["path"].is_string())
                    .filter(|dependency| wanted(&dependency["kind"]))
                    .map(|dependency| inside(&dependency["path"], root))
                    .collect()
            };
            let built = edges(|kind| kind != "dev");
            let tested = edges(|kind| kind == "dev");
            Crate {
                folder: super::tree::folder(&manifest).to_owned(),
                package: string(&package["name"]),
                test_edges: tested.difference(&built).cloned().collect(),
                edges: built,
                targets: targets(&package["targets"], root),
            }
        })
        .collect()
}

fn targets(listed: &Value, root: &Path) -> Vec<Target> {
    let listed = listed.as_array().into_iter().flatten();
    listed
        .map(|target| Target {
            name: string(&target["name"]),
            kind: string(&target["kind"][0]),
            file: inside(&target["src_path"], root),
        })
        .collect()
}

fn inside(path: &Value, root: &Path) -> String {
    let path = string(path);
    let inside = Path::new(&path).strip_prefix(root).ok();
    inside.map_or(path.clone(), |inside| inside.display().to_string())
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn edges_are_the_dependencies_that_have_a_path() {
        let dependency = |name: &str, kind: Value, path: Value| json!({ "name": name, "kind": kind, "path": path });
        let metadata = json!({ "packages": [{
            "name": "x-pool",
            "manifest_path": "/r/pool/Cargo.toml",
            "dependencies": [
                dependency("a", Value::Null, "/r/crates/a".into()),
                dependency("b", "build".into(), "/r/crates/b".into()),
                dependency("a", "dev".into(), "/r/crates/a".into()),
                dependency("c", "dev".into(), "/r/crates/c".into()),
                dependency("serde", Value::Null, Value::Null),
            ],
            "targets": [{ "name": "x_pool", "kind": ["lib"], "src_path": "/r/pool/src/lib.rs" }],
        }]});
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let expected = Crate {
            folder: "pool".to_owned(),
            package: "x-pool".to_owned(),
            edges: set(&["crates/a", "crates/b"]),
            test_edges: set(&["crates/c"]),
            targets: vec![Target {
                name: "x_pool".to_owned(),
                kind: "lib".to_owned(),
                file: "pool/src/lib.rs".to_owned(),
            }],
        };
        assert_eq!(members(&metadata, Path::new("/r")), [expected]);
    }
}
